//! Services: how many of their containers are ready, and why not all.

use super::{Shown, alone, containers, events_of, rows};
use crate::{
    args::{Named, Output},
    commands::namespace,
    output::{paint, yaml},
};
use heptad_api::Object;
use heptad_client::Client;
use heptad_model::{Container, Service};

impl Shown for Service {
    type Beside = Vec<Container>;

    async fn beside(client: &Client) -> anyhow::Result<Self::Beside> {
        containers(client).await
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAMESPACE", "NAME", "READY", "IMAGE", "ADDRESS", "PORTS"];
        headings.extend(wide.then_some(["REQUESTS", "EXPOSED", "GENERATION"]).into_iter().flatten());
        headings
    }

    fn cells(&self, containers: &Self::Beside, wide: bool) -> Vec<String> {
        let own = containers.iter().filter(|c| c.service == self.key() && c.is_alive());
        let ready = own.filter(|c| c.ready).count();
        let ready = format!("{ready}/{}", self.replicas);
        let ports: Vec<String> = self.ports.iter().map(|p| p.container_port.to_string()).collect();
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        let mut cells =
            vec![self.namespace.to_string(), self.name.clone(), ready, self.image.clone(), address, ports.join(",")];
        if wide {
            let host = self.expose.as_ref().map(|e| e.host.clone()).unwrap_or_default();
            cells.extend([self.resources.to_string(), host, self.generation.to_string()]);
        }
        cells
    }

    async fn describe(client: &Client, args: &Named) -> anyhow::Result<String> {
        let item: Object<Self> = client.get(&namespace(&args.namespace.namespace), &args.name).await?;
        if let Some(text) = alone(&item, args)? {
            return Ok(text);
        }
        let key = item.object.key();
        let mut own = client.list::<Container>().await?.items;
        own.retain(|container| container.object.service == key);
        let mut out = yaml(&item.object)?;
        out += &format!("\n{}\n{}", paint("Containers", 1), rows(&own, &(), Output::Wide));
        let why = client.why(&key).await?;
        out += &format!("\n{}\n", why.summary);
        let subjects: Vec<String> = own.iter().map(|c| format!("container/{}", c.object.id)).collect();
        let service = format!("service/{key}");
        out += &events_of(client, |event| event.subject == service || subjects.contains(&event.subject)).await?;
        Ok(out)
    }
}
