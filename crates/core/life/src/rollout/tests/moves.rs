//! Containers that would be better on another node: a successor serves there before they go, and nothing is lost if it cannot.

use super::World;
use crate::samples::memory;
use heptad_model::{Container, Node, Reservation, Service};

fn world(replicas: u32) -> World {
    let mut service = Service::new("web", "good");
    (service.replicas, service.resources) = (replicas, memory(300).into());
    let mut world = World::new(3, 1_000, service, 7);
    for _ in 0..50 {
        world.round();
    }
    assert_eq!(world.serving(), replicas as usize);
    world
}

fn wish(world: &mut World, node: &str, until_ms: u64) -> Container {
    let mut containers = world.containers.values_mut().filter(|c| c.node.as_ref().is_some_and(|n| n.as_str() != node));
    let container = containers.next().expect("one is elsewhere");
    container.move_to = Some(Reservation { node: node.into(), until_ms });
    container.clone()
}

fn on(world: &World, node: &str) -> usize {
    world.containers.values().filter(|c| c.is_alive() && c.node.as_ref().is_some_and(|n| n.as_str() == node)).count()
}

#[test]
fn a_move_goes_to_its_node_and_never_serves_less() {
    let mut world = world(2);
    let (empty, _) =
        (0..3).map(|i| (format!("n{i}"), i)).find(|(n, _)| on(&world, n) == 0).expect("two of three are used");
    let moved = wish(&mut world, &empty, u64::MAX);
    let mut least = usize::MAX;
    for _ in 0..50 {
        let (before, after) = world.round();
        least = least.min(before).min(after);
    }
    assert_eq!((least, on(&world, &empty)), (2, 1));
    assert!(!world.containers.contains_key(&moved.id));
    assert_eq!(world.containers.len(), 2, "and then all is quiet");
}

#[test]
fn a_move_to_a_full_node_ends_elsewhere_or_expires() {
    let mut world = world(2);
    let (empty, _) =
        (0..3).map(|i| (format!("n{i}"), i)).find(|(n, _)| on(&world, n) == 0).expect("two of three are used");
    world.nodes.iter_mut().filter(|n| n.name.as_str() == empty).for_each(|n: &mut Node| n.capacity = memory(100));
    let until_ms = world.now_ms + 5_000;
    wish(&mut world, &empty, until_ms);
    let mut least = usize::MAX;
    for _ in 0..50 {
        let (before, after) = world.round();
        least = least.min(before).min(after);
    }
    assert_eq!((least, on(&world, &empty), world.serving(), world.containers.len()), (2, 0, 2, 2));
}

#[test]
fn a_move_to_a_node_that_is_not_there_does_nothing() {
    let mut world = world(2);
    wish(&mut world, "gone", u64::MAX);
    let before: Vec<_> = world.containers.keys().cloned().collect();
    for _ in 0..20 {
        world.round();
    }
    assert_eq!(before, world.containers.keys().cloned().collect::<Vec<_>>());
}
