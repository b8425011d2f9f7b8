//! Nodes: how they stand, when they were heard last, and what they gave of what they have.

use super::Shown;
use crate::output::age;
use heptad_api::work::NodeSilence;
use heptad_client::Client;
use heptad_model::{Dimension, Node, NodeName};
use std::collections::BTreeMap;

/// `allocated/capacity` of a dimension.
fn share(node: &Node, dimension: Dimension) -> String {
    let show = |amount| dimension.show(amount);
    format!("{}/{}", show(node.allocated.get(dimension)), show(node.capacity.get(dimension)))
}

/// `KIND allocated/count` of each kind of device.
fn devices(node: &Node) -> String {
    let share = |(kind, count): (&String, &u32)| {
        let given = node.allocated_devices.get(kind).copied().unwrap_or_default();
        format!("{kind} {given}/{count}")
    };
    let all: Vec<String> = node.devices.iter().map(share).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// Whether containers come to a node, stay, or go.
fn scheduling(node: &Node) -> String {
    match node {
        Node { removing: true, .. } => "removing".to_owned(),
        Node { fenced: true, .. } => "fenced".to_owned(),
        Node { draining: true, .. } => "draining".to_owned(),
        Node { unschedulable: true, .. } => "cordoned".to_owned(),
        _ => node.condition().map_or_else(|| "yes".to_owned(), |condition| condition.to_string()),
    }
}

impl Shown for Node {
    type Beside = BTreeMap<NodeName, NodeSilence>;

    async fn beside(client: &Client) -> anyhow::Result<Self::Beside> {
        Ok(client.liveness().await?.into_iter().map(|node| (node.node.clone(), node)).collect())
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings =
            vec!["NAME", "STATUS", "SCHEDULING", "HEARD", "CONTAINERS", "CPU", "MEMORY", "DEVICES", "VERSION"];
        let more = ["DRIVER", "STORAGE", "NETWORK", "ADDRESS", "NOT ENFORCED"];
        headings.extend(wide.then_some(more).into_iter().flatten());
        headings
    }

    fn cells(&self, silences: &Self::Beside, wide: bool) -> Vec<String> {
        let silence = silences.get(&self.name);
        let heard = silence.map_or_else(|| "-".to_owned(), |node| format!("{} ago", age(0, node.silence_ms)));
        let mut cells = vec![
            self.name.to_string(),
            self.status.to_string(),
            scheduling(self),
            heard,
            self.containers.len().to_string(),
            share(self, Dimension::Cpu),
            share(self, Dimension::Memory),
            devices(self),
            self.labels.get("heptad.dev/version").cloned().unwrap_or_else(|| "-".to_owned()),
        ];
        if wide {
            let address = self.address.map(|address| address.to_string()).unwrap_or_default();
            let shares = [share(self, Dimension::Storage), share(self, Dimension::Network)];
            cells.push(self.driver.to_string());
            cells.extend(shares);
            cells.extend([address, self.unenforced.join(",")]);
        }
        cells
    }
}
