//! Containers: listed with the namespace of their service.

use super::Shown;
use crate::output::{age, now_ms};
use heptad_model::{Container, ContainerStatus, Namespace};

/// A container's state in one or two words.
fn state(container: &Container) -> String {
    match (container.status, container.reason.as_str()) {
        (ContainerStatus::Running, "") => "Running".to_owned(),
        (status, "") => status.to_string(),
        (_, reason) => reason.to_owned(),
    }
}

impl Shown for Container {
    type Beside = ();

    const IN_NAMESPACES: bool = true;

    fn is_of(&self, namespace: &Namespace) -> bool {
        self.service.namespace == *namespace
    }

    fn headings(wide: bool) -> Vec<&'static str> {
        let mut headings = vec!["NAME", "SERVICE", "STATUS", "READY", "RESTARTS", "NODE", "AGE"];
        headings.extend(wide.then_some(["ADDRESS", "EXIT", "MESSAGE"]).into_iter().flatten());
        headings
    }

    fn cells(&self, _: &Self::Beside, wide: bool) -> Vec<String> {
        let node = self.node.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".to_owned());
        let ready = if self.ready { "yes" } else { "no" }.to_owned();
        let mut cells = vec![
            self.id.to_string(),
            self.service.to_string(),
            state(self),
            ready,
            self.restarts.to_string(),
            node,
            age(self.created_at_ms, now_ms()),
        ];
        if wide {
            let addresses: Vec<String> = self.addresses.values().map(ToString::to_string).collect();
            let exit = self.exit_code.map(|code| code.to_string()).unwrap_or_default();
            cells.extend([addresses.join(","), exit, self.message.clone()]);
        }
        cells
    }
}
