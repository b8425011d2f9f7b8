//! Containers that must leave their node because their service does not tolerate a taint with the effect `NoExecute`.
//! Stops nothing and finds no other place: replacements are planned like anything else.

use heptad_capacity::NodesView;
use heptad_model::{Container, ContainerId, Taint};

/// A container that must leave, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The container.
    pub container: ContainerId,
    /// The taint.
    pub taint: Taint,
}

/// The containers that must leave the nodes of `view`, whose services it knows; without those that are already being
/// stopped, and those of deleted services.
pub fn evictions<'a>(view: &NodesView, containers: impl IntoIterator<Item = &'a Container>) -> Vec<Eviction> {
    let evicted = |container: &Container| {
        let taint = view.must_leave(container)?;
        Some(Eviction { container: container.id.clone(), taint: taint.clone() })
    };
    containers.into_iter().filter_map(evicted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::{Node, Service, TaintEffect, Toleration, TolerationOperator};

    #[test]
    fn only_who_does_not_bear_the_taint_must_leave() {
        let mut nodes = ["a", "b"].map(|name| Node::new(name, crate::samples::memory(100)));
        let taint = |effect| Taint { key: "leaking".into(), value: String::new(), effect };
        nodes[0].taints = vec![taint(TaintEffect::NoSchedule), taint(TaintEffect::NoExecute)];
        nodes[1].taints = vec![taint(TaintEffect::NoSchedule)];
        let plain = Service::new("web", "host");
        let mut bears = Service::new("probe", "host");
        let operator = TolerationOperator::Exists;
        bears.tolerations = vec![Toleration { key: "leaking".into(), operator, ..Toleration::default() }];
        let on = |id: &str, service: &Service, node: &str| Container {
            node: Some(node.into()),
            ..Container::pending(id.into(), service, 0)
        };
        let containers = [on("web-1", &plain, "a"), on("web-2", &plain, "b"), on("probe-1", &bears, "a")];
        let view = NodesView::new(&nodes, &containers).with_services([&plain, &bears]);
        let out = evictions(&view, &containers);
        assert_eq!(out, [Eviction { container: "web-1".into(), taint: taint(TaintEffect::NoExecute) }]);
    }
}
