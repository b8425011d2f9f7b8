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
    // One replica, and the extra one that is allowed for a while.
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

/// A node with two GPUs: one container has one of them, and two others share the other.
fn with_devices() -> Snapshot {
    let mut snapshot = good();
    snapshot.services[0].replicas = 3;
    snapshot.services[0].resources.memory = Bytes(1);
    snapshot.services[0].ports[0].host_port = None;
    snapshot.nodes[0].devices.insert("gpu".into(), 2);
    let template = snapshot.services[0].template();
    for (i, (millis, index)) in [(1_000, 0), (400, 1), (600, 1)].into_iter().enumerate() {
        let mut container = Container { id: format!("web-{i}").into(), ready: false, ..snapshot.containers[0].clone() };
        container.template = template.clone();
        container.generation = 2;
        container.template.resources.devices.insert("gpu".into(), crate::DeviceMillis(millis));
        container.devices.insert("gpu".into(), vec![index]);
        snapshot.containers.push(container);
    }
    snapshot.containers.remove(0);
    snapshot.with_derived()
}

#[test]
fn no_device_is_given_beyond_its_whole() {
    use Guarantee::G4;
    let broken = |change: fn(&mut Snapshot)| {
        let mut snapshot = with_devices();
        change(&mut snapshot);
        verify(&snapshot).into_iter().map(|f| f.guarantee).collect::<BTreeSet<_>>()
    };
    assert_eq!(verify(&with_devices()), []);
    assert_eq!(broken(|s| _ = s.containers[0].devices.insert("gpu".into(), vec![1])), [G4].into(), "beyond its whole");
    assert_eq!(broken(|s| _ = s.containers[1].devices.insert("gpu".into(), vec![2])), [G4].into(), "there is no third");
    assert_eq!(broken(|s| s.containers[1].devices.clear()), [G4].into(), "it has none");
    assert_eq!(broken(|s| _ = s.containers[0].devices.insert("gpu".into(), vec![0, 0])), [].into(), "one is one");
    assert_eq!(broken(|s| _ = s.containers[1].devices.insert("gpu".into(), vec![0, 1])), [G4].into(), "a share of two");
    assert_eq!(broken(|s| _ = s.containers[2].devices.insert("nic".into(), vec![0])), [G4].into(), "it asks none");
    assert_eq!(broken(|s| _ = s.nodes[0].devices.remove("gpu")), [G4].into());
}
