//! Quotas: what their namespaces took of them.

use super::{Shown, containers};
use heptad_client::Client;
use heptad_model::{Container, Dimension, Quota};

/// `used/limit` of a dimension; nothing if it is not bounded.
fn quota_share(quota: &Quota, containers: &[&Container], dimension: Dimension) -> String {
    let Some(limit) = quota.limit(dimension) else { return "-".to_owned() };
    let used = containers.iter().filter_map(|c| c.bound_request());
    let used = used.map(|(_, resources)| resources.vector().get(dimension)).fold(0, u64::saturating_add);
    format!("{}/{}", dimension.show(used), dimension.show(limit))
}

impl Shown for Quota {
    type Beside = Vec<Container>;

    async fn beside(client: &Client) -> anyhow::Result<Self::Beside> {
        containers(client).await
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAMESPACE", "NAME", "CPU", "MEMORY", "CONTAINERS", "SERVICES"];
        headings.extend(wide.then_some(["STORAGE", "NETWORK"]).into_iter().flatten());
        headings
    }

    fn cells(&self, containers: &Self::Beside, wide: bool) -> Vec<String> {
        let of_namespace = |c: &&Container| c.service.namespace == self.namespace && c.bound_request().is_some();
        let bound: Vec<&Container> = containers.iter().filter(of_namespace).collect();
        let share = |dimension| quota_share(self, &bound, dimension);
        let none = || "-".to_owned();
        let count = self.containers.map_or_else(none, |limit| format!("{}/{limit}", bound.len()));
        let mut cells = vec![
            self.namespace.to_string(),
            self.name.clone(),
            share(Dimension::Cpu),
            share(Dimension::Memory),
            count,
            self.services.map_or_else(none, |limit| limit.to_string()),
        ];
        if wide {
            cells.extend([share(Dimension::Storage), share(Dimension::Network)]);
        }
        cells
    }
}
