//! Each predicate holds on a good snapshot and finds each way of breaking it.

use super::*;
use crate::{Container, ContainerStatus, Node, Service, quantity::Bytes, service::Port};
use std::net::SocketAddr;

fn good() -> Snapshot {
    let mut service = Service::new("web", "host");
    service.id = "s1".into();
    service.generation = 3;
    service.resources.memory = Bytes(60);
    service.ports = vec![Port { host_port: Some(80), ..Port::tcp(8080) }];
    let mut container = Container::pending("web-a".into(), &service, 0);
    container.node = Some("n1".into());
    container.status = ContainerStatus::Running;
    container.ready = true;
    container.addresses.insert(8080, SocketAddr::from(([10, 0, 0, 2], 8080)));
    let capacity = ResourceVector { memory: Bytes(100), ..ResourceVector::ZERO };
    let snapshot = Snapshot {
        nodes: vec![Node::new("n1", capacity)],
        services: vec![service],
        containers: vec![container],
        ..Snapshot::default()
    };
    snapshot.with_derived()
}

fn broken(change: impl FnOnce(&mut Snapshot)) -> BTreeSet<Guarantee> {
    let mut snapshot = good();
    change(&mut snapshot);
    verify(&snapshot).into_iter().map(|f| f.guarantee).collect()
}

#[test]
fn a_good_snapshot_has_no_findings() {
    assert_eq!(verify(&good()), []);
}

#[test]
fn each_break_is_found_under_its_id() {
    use Guarantee::{G1, G2, G4};
    // One replica, and the one beyond that there may be for a while.
    let beyond_surge = |s: &mut Snapshot| {
        for id in ["web-b", "web-c"] {
            let other = crate::Container { id: id.into(), ..s.containers[0].clone() };
            s.containers.push(other);
        }
    };
    assert_eq!(broken(|s| s.services.clear()), [G1].into());
    assert_eq!(broken(|s| s.containers[0].service_id = "old".into()), [G1].into());
    assert_eq!(broken(|s| s.nodes.clear()), [G1].into());
    assert_eq!(broken(|s| s.containers[0].ready = false), [G1].into());
    assert_eq!(broken(|s| s.monitoring[0].container = "gone".into()), [G1].into());
    assert_eq!(broken(|s| s.nodes.push(s.nodes[0].clone())), [G1].into());
    assert_eq!(broken(|s| s.containers[0].template.image = "other".into()), [G2].into());
    assert_eq!(broken(beyond_surge), [G2, G4].into());
    assert_eq!(broken(|s| s.nodes[0].capacity.memory = Bytes(59)), [G4].into());
    assert_eq!(broken(|s| s.containers[0].template.resources.storage = Bytes(1)), [G2, G4].into());
}
