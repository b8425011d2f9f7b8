//! Waves, canaries, switches, emptied and lost nodes, failures and rollbacks in small worlds.

use super::*;
use heptad_model::{Amount, BlueGreen, Canary, CanaryStep, Rolling, RolloutPhase, Strategy as Exchange, TrafficSplit};

fn rolling(replicas: u32, missing: Amount, surge: Amount) -> Service {
    let rolling = Rolling { max_unavailable: missing, max_surge: surge };
    Service { strategy: Exchange::Rolling(rolling), ..web(replicas) }
}

fn v2(world: &mut World) {
    world.change(|service| service.image = "v2".into());
}

fn phase(world: &World) -> RolloutPhase {
    world.rollout.as_ref().expect("it was looked at").phase
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![(0u32..4).prop_map(Amount::Count), (0u32..120).prop_map(Amount::Percent)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn waves_keep_their_promises_and_end(
        replicas in 1u32..8, missing in amount(), surge in amount(), min in prop::option::of(0u32..8), chance: u64,
    ) {
        let mut service = rolling(replicas, missing, surge);
        service.min_ready = min;
        let (may_miss, _) = service.slack();
        let least = replicas.saturating_sub(may_miss) as usize;
        let mut world = settled(2, 1000, service, chance);
        v2(&mut world);
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() >= least, "{} of {least} serve", world.serving());
        }
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
        prop_assert_eq!(phase(&world), RolloutPhase::Complete);
    }

    #[test]
    fn nodes_are_emptied_with_as_many_ready_as_promised(
        replicas in 1u32..6, missing in 0u32..3, drained in 0usize..3, chance: u64,
    ) {
        let service = rolling(replicas, Amount::Count(missing), Amount::Count(1));
        let least = replicas.saturating_sub(missing) as usize;
        let mut world = settled(3, 1000, service, chance);
        world.nodes[drained].draining = true;
        world.nodes[drained].unschedulable = true;
        let name = world.nodes[drained].name.clone();
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() >= least);
        }
        prop_assert!(world.is_as_wanted());
        prop_assert!(world.containers.values().all(|c| c.node.as_ref() != Some(&name)));
    }

    #[test]
    fn what_must_never_run_twice_never_does(
        replicas in 1u32..4, chance: u64, events in prop::collection::vec((0u8..7, 0usize..3, 0usize..15), 1..8),
    ) {
        let mut world = settled(3, 1000, Service { never_twice: true, ..web(replicas) }, chance);
        let most = replicas as usize;
        for (event, node, rounds) in events {
            match event {
                0 => world.nodes[node].status = NodeStatus::NotReady,
                1 => (world.nodes[node].status, world.nodes[node].fenced) = (NodeStatus::Ready, false),
                2 => v2(&mut world),
                3 => world.change(|service| service.image = "v1".into()),
                4 => world.nodes[node].draining = !world.nodes[node].draining,
                5 => world.nodes[node].removing = !world.nodes[node].removing,
                _ => {}
            }
            for _ in 0..rounds {
                world.round();
                // Nobody declared any node to be off, so all of them may run.
                let may_run = world.containers.values().filter(|c| c.node.is_some()).count();
                prop_assert!(may_run <= most, "{may_run} of {most}: {:?}", world.containers);
            }
        }
        for node in &mut world.nodes {
            (node.status, node.draining, node.removing) = (NodeStatus::Ready, false, false);
        }
        (0..ROUNDS_MAX).for_each(|_| { world.round(); });
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
    }

    #[test]
    fn canaries_and_switches_never_miss_anybody_and_end(
        replicas in 1u32..6, weights in prop::collection::vec(1u32..100, 0..4), keep_ms in 0u64..9_000, chance: u64,
    ) {
        let steps: Vec<_> = weights.into_iter().map(|weight| CanaryStep { weight, pause_ms: Some(3_000) }).collect();
        let strategy = match steps.is_empty() {
            true => Exchange::BlueGreen(BlueGreen { keep_ms }),
            false => Exchange::Canary(Canary { steps }),
        };
        let mut world = settled(2, 1000, Service { strategy, ..web(replicas) }, chance);
        v2(&mut world);
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() >= replicas as usize);
            let split = world.service.as_ref().and_then(|service| service.split);
            prop_assert!(split.is_none_or(|split| split.percent <= 100 && split.revision == 2));
        }
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
        prop_assert_eq!(world.service.as_ref().and_then(|service| service.split), None);
    }

    #[test]
    fn nodes_that_come_and_go_end_in_as_many_as_asked(
        events in prop::collection::vec((0usize..3, 0u8..3, 0usize..12), 1..8), replicas in 1u32..6, chance: u64,
    ) {
        let mut world = settled(3, 1000, web(replicas), chance);
        for (node, status, rounds) in events {
            world.nodes[node].status = [NodeStatus::Ready, NodeStatus::Unknown, NodeStatus::NotReady][usize::from(status)];
            (0..rounds).for_each(|_| { world.round(); });
        }
        for node in &mut world.nodes {
            node.status = NodeStatus::Ready;
        }
        (0..ROUNDS_MAX).for_each(|_| { world.round(); });
        prop_assert_eq!(world.actions(), []);
        prop_assert!(world.is_as_wanted(), "{:?}", world.containers);
    }

    #[test]
    fn a_crashing_successor_is_undone_and_nobody_is_missed(replicas in 1u32..6, which in 0u8..3, chance: u64) {
        let strategy = match which {
            0 => Exchange::default(),
            1 => Exchange::BlueGreen(BlueGreen::default()),
            _ => Exchange::Canary(Canary { steps: vec![CanaryStep { weight: 20, pause_ms: None }] }),
        };
        let mut world = settled(2, 1000, Service { strategy, ..web(replicas) }, chance);
        world.broken = "crashing";
        world.change(|service| service.image = "crashing".into());
        for _ in 0..ROUNDS_MAX {
            world.round();
            prop_assert!(world.serving() >= replicas as usize);
        }
        prop_assert!(world.told.contains(&"RolledBack".to_owned()), "{:?}", world.told);
        prop_assert_eq!(world.service.as_ref().map(|service| service.image.as_str()), Some("v1"));
        prop_assert!(world.is_as_wanted());
        let rollout = world.rollout.as_ref().expect("there is one");
        prop_assert_eq!((rollout.revision, rollout.back_from, rollout.phase), (1, Some(2), RolloutPhase::Complete));
    }
}

#[test]
fn a_canary_waits_with_its_share_until_it_is_resumed() {
    let steps = vec![CanaryStep { weight: 25, pause_ms: None }, CanaryStep { weight: 50, pause_ms: Some(5_000) }];
    let mut world = settled(2, 1000, Service { strategy: Exchange::Canary(Canary { steps }), ..web(4) }, 1);
    v2(&mut world);
    (0..40).for_each(|_| _ = world.round());
    assert_eq!(phase(&world), RolloutPhase::Waiting);
    let share = |world: &World| world.service.as_ref().and_then(|service| service.split);
    assert_eq!(share(&world), Some(TrafficSplit { revision: 2, percent: 25 }));
    assert_eq!(world.wanted().filter(|c| c.revision == 2).count(), 1);
    assert_eq!(world.wanted().filter(|c| c.revision == 1).count(), 4);
    // As `resume` does.
    let rollout = world.rollout.as_mut().expect("there is one");
    (rollout.step, rollout.reached_at_ms, rollout.phase) = (1, None, RolloutPhase::Progressing);
    world.actions();
    assert_eq!(share(&world).map(|split| split.percent), Some(25), "more only once there are more");
    (0..60).for_each(|_| _ = world.round());
    assert!(world.is_as_wanted());
    assert_eq!((share(&world), world.told.iter().filter(|word| *word == "CanaryStep").count()), (None, 2));
}

#[test]
fn a_switch_sends_nothing_to_the_new_before_all_are_ready_and_keeps_the_old_for_a_while() {
    let strategy = Exchange::BlueGreen(BlueGreen { keep_ms: 10_000 });
    let mut world = settled(2, 1000, Service { strategy, ..web(3) }, 7);
    v2(&mut world);
    let mut switched_at = None;
    for _ in 0..60 {
        world.round();
        let new = world.wanted().filter(|c| c.revision == 2 && c.ready).count();
        let old = world.wanted().filter(|c| c.revision == 1).count();
        match world.service.as_ref().and_then(|service| service.split).map(|split| split.percent) {
            Some(0) => assert_eq!(old, 3),
            Some(100) => {
                let at = *switched_at.get_or_insert(world.now_ms);
                assert!(new == 3 && (old == 3 || world.now_ms >= at + 10_000), "{old} are left");
            }
            Some(other) => panic!("{other} %"),
            None => assert!(switched_at.is_some() && old == 0),
        }
    }
    assert!(switched_at.is_some() && world.is_as_wanted());
}

#[test]
fn without_progress_the_exchange_fails_and_is_undone_only_if_that_is_wanted_and_possible() {
    let mut world = settled(2, 200, Service { progress_deadline_ms: 20_000, auto_rollback: false, ..web(2) }, 3);
    world.change(|service| service.image = "broken".into());
    (0..40).for_each(|_| _ = world.round());
    let rollout = world.rollout.clone().expect("there is one");
    assert_eq!(rollout.phase, RolloutPhase::Failed);
    assert!(rollout.reason.contains("no progress for 20 s"), "{}", rollout.reason);
    assert_eq!(world.serving(), 2);
    world.change(|service| service.auto_rollback = true);
    world.change(|service| service.image = "broken again".into());
    world.broken = "broken again";
    (0..60).for_each(|_| _ = world.round());
    assert!(world.is_as_wanted());
    assert_eq!(world.service.as_ref().map(|service| service.image.as_str()), Some("v1"));
    // The first rollout of all has nothing to go back to.
    let mut first = World::new(1, 200, Service { progress_deadline_ms: 20_000, ..web(1) }, 5);
    first.broken = "v1";
    (0..40).for_each(|_| _ = first.round());
    assert_eq!(phase(&first), RolloutPhase::Failed);
    first.broken = "other";
    first.settle();
    assert_eq!(phase(&first), RolloutPhase::Complete);
}

#[test]
fn a_paused_exchange_moves_nothing_but_makes_what_is_missing() {
    let mut world = settled(2, 400, web(3), 4);
    world.rollout.as_mut().expect("there is one").paused = true;
    v2(&mut world);
    world.settle();
    assert_eq!(world.wanted().filter(|c| c.template.image == "v1" && c.ready).count(), 3);
    world.change(|service| service.replicas = 4);
    world.settle();
    assert_eq!((world.wanted().count(), world.serving()), (4, 4));
    world.rollout.as_mut().expect("there is one").paused = false;
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn revisions_have_the_number_of_their_template_and_only_so_many_are_kept() {
    let mut world = settled(1, 200, Service { revisions_max: 2, ..web(1) }, 6);
    for image in ["v2", "v3", "v1", "v4"] {
        world.change(|service| service.image = image.into());
        world.settle();
    }
    let kept: Vec<_> = world.revisions.values().map(|r| (r.number, r.template.image.as_str(), r.used)).collect();
    // The revision of `v2` went with the last one; `v1` was used again.
    assert_eq!(kept, [(1, "v1", 4), (3, "v3", 3), (4, "v4", 5)]);
}

#[test]
fn what_must_never_run_twice_waits_until_its_node_is_known_to_be_off() {
    let mut world = settled(2, 200, Service { never_twice: true, ..web(1) }, 2);
    let at = world.containers.values().next().and_then(|c| c.node.clone()).expect("it has a node");
    let index = world.nodes.iter().position(|node| node.name == at).expect("it is there");
    world.nodes[index].status = NodeStatus::NotReady;
    (0..20).for_each(|_| _ = world.round());
    assert_eq!(world.containers.len(), 1, "nobody said that it is off");
    world.nodes[index].fenced = true;
    (0..20).for_each(|_| _ = world.round());
    assert_eq!(world.wanted().filter(|c| c.ready && c.node.as_ref() != Some(&at)).count(), 1);
    (world.nodes[index].status, world.nodes[index].fenced) = (NodeStatus::Ready, false);
    world.settle();
    assert!(world.is_as_wanted());
}

#[test]
fn a_lost_container_is_called_ready_only_if_nobody_else_is() {
    let mut world = settled(1, 200, web(1), 1);
    world.nodes[0].status = NodeStatus::NotReady;
    assert!(matches!(&world.actions()[..], [Action::Lose(_, true)]));
    let mut world = settled(2, 20, web(4), 1);
    world.nodes[0].status = NodeStatus::NotReady;
    let actions = world.actions();
    assert!(actions.len() == 2 && actions.iter().all(|a| matches!(a, Action::Lose(_, false))), "{actions:?}");
}
