//! Properties over random worlds of a few services, so that policies and rules often meet.

use super::*;
use crate::{balance::choose, explain};
use heptad_model::{DesiredState, Namespace, snapshot::ready_endpoints};
use proptest::{prelude::*, sample::select};
use std::collections::BTreeMap;

const NAMES: [&str; 4] = ["web", "db", "job", "api"];
const SPACES: [&str; 2] = ["default", "shop"];
const PATHS: [&str; 3] = ["/", "/a", "/a/b"];

#[derive(Clone, Debug)]
struct World {
    services: Vec<Service>,
    containers: Vec<Container>,
    policies: Vec<NetworkPolicy>,
    rules: Vec<TrafficRule>,
}

impl World {
    fn table(&self) -> Table {
        let Self { services, containers, policies, rules } = self;
        Table::build(&Inputs { services, containers, policies, rules })
    }
}

fn space() -> impl Strategy<Value = Namespace> {
    select(&SPACES[..]).prop_map(Namespace::from)
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(select(&NAMES[..]).prop_map(str::to_owned), 0..3)
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(Just("tier".to_owned()), select(vec!["x".to_owned(), "y".to_owned()]), 0..2)
}

fn peers() -> impl Strategy<Value = Option<Vec<PolicyPeer>>> {
    let ports = select(vec![vec![], vec![80], vec![81]]);
    let peer = (proptest::option::of(space()), names(), labels(), ports, prop::bool::weighted(0.2)).prop_map(
        |(namespace, services, labels, ports, external)| match external {
            true => PolicyPeer { external, ports, ..PolicyPeer::default() },
            false => PolicyPeer { namespace, services, labels, external, ports },
        },
    );
    proptest::option::of(proptest::collection::vec(peer, 0..3))
}

fn policies() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let policy =
        (space(), names(), labels(), peers(), peers()).prop_map(|(namespace, services, labels, ingress, egress)| {
            let selector = Selector { namespace: None, services, labels };
            NetworkPolicy { id: String::new(), name: String::new(), namespace, selector, ingress, egress }
        });
    proptest::collection::vec(policy, 0..5).prop_map(|mut all| {
        all.iter_mut().zip(0..).for_each(|(policy, number)| policy.name = format!("p{number}"));
        all
    })
}

fn rules() -> impl Strategy<Value = Vec<TrafficRule>> {
    let condition = (select(vec!["path", "method"]), select(vec!["Equals", "NotEquals", "Prefix"]), select(&PATHS[..]));
    let backend = (select(vec!["web", "db", "missing"]), 0_u32..4);
    let rule =
        (space(), -1..2_i32, proptest::collection::vec(condition, 0..3), proptest::collection::vec(backend, 1..3))
            .prop_map(|(namespace, priority, conditions, backends)| TrafficRule {
                namespace,
                ..super::rule("", priority, &conditions, &backends)
            });
    proptest::collection::vec(rule, 0..5).prop_map(|mut all| {
        all.iter_mut().zip(0..).for_each(|(rule, number)| rule.name = format!("r{number}"));
        all
    })
}

fn services() -> impl Strategy<Value = (Vec<Service>, Vec<Container>)> {
    let one = (any::<bool>(), labels(), proptest::collection::vec((any::<bool>(), any::<bool>()), 0..3));
    proptest::collection::vec(one, NAMES.len() * SPACES.len()).prop_map(|drawn| {
        let (mut services, mut containers) = (Vec::new(), Vec::new());
        for ((present, labels, replicas), number) in drawn.into_iter().zip(0_usize..) {
            let namespace = Namespace::from(SPACES[number % 2]);
            let made = Service { namespace, labels, ..super::service(NAMES[number / 2]) };
            for ((ready, stopping), replica) in replicas.into_iter().zip(0_u8..) {
                let mut container = super::container(&made, number as u8 * 10 + replica, ready);
                container.id = ContainerId(format!("{}-{number}-{replica}", made.name));
                container.desired = if stopping { DesiredState::Stopped } else { DesiredState::Running };
                containers.push(container);
            }
            if present {
                services.push(made);
            }
        }
        (services, containers)
    })
}

fn world() -> impl Strategy<Value = World> {
    (services(), policies(), rules()).prop_map(|((services, containers), policies, rules)| World {
        services,
        containers,
        policies,
        rules,
    })
}

fn keys() -> impl Iterator<Item = ServiceKey> {
    SPACES.into_iter().flat_map(|space| NAMES.map(|name| ServiceKey::new(space, name)))
}

fn callers() -> impl Iterator<Item = Caller> {
    keys().map(Caller::Service).chain([Caller::External, Caller::Operator])
}

/// Every combination of caller, target and path.
fn each_call(mut check: impl FnMut(Facts<'_>)) {
    for caller in callers() {
        for target in keys() {
            for path in PATHS {
                let http = HttpFacts { method: "GET", path, query: None, headers: &NoHeaders };
                check(Facts { caller: &caller, target: &target, port: 80, http: Some(http) });
            }
        }
    }
}

/// The documented semantics, written again without any preparation.
fn naively_allowed(world: &World, caller: &Caller, target: &ServiceKey, port: u16) -> bool {
    let find = |key: &ServiceKey| world.services.iter().find(|service| service.key() == *key);
    let Some(target) = find(target) else { return false };
    let from = match caller {
        Caller::Operator => return true,
        Caller::External => None,
        Caller::Service(key) => find(key),
    };
    let listed = |policy: &NetworkPolicy, peers: &Vec<PolicyPeer>, other: Option<&Service>, outside: bool| {
        peers.iter().any(|peer| {
            let is_meant = match other {
                Some(other) => !peer.external && peer.selector().selects(&policy.namespace, other),
                None => outside && peer.external,
            };
            is_meant && (peer.ports.is_empty() || peer.ports.contains(&port))
        })
    };
    let side = |of: &Service, other: Option<&Service>, list: fn(&NetworkPolicy) -> &Option<Vec<PolicyPeer>>| {
        let outside = *caller == Caller::External;
        let selecting = world.policies.iter().filter(|p| p.selector.selects(&p.namespace, of));
        let lists: Vec<_> = selecting.filter_map(|p| list(p).as_ref().map(|peers| (p, peers))).collect();
        lists.is_empty() || lists.iter().any(|(p, peers)| listed(p, peers, other, outside))
    };
    side(target, from, |p| &p.ingress) && from.is_none_or(|from| side(from, Some(target), |p| &p.egress))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_insertion_does_not_matter(
        (world, shuffled) in world().prop_flat_map(|world| {
            let World { services, containers, policies, rules } = world.clone();
            let shuffled = (
                Just(services).prop_shuffle(),
                Just(containers).prop_shuffle(),
                Just(policies).prop_shuffle(),
                Just(rules).prop_shuffle(),
            );
            (Just(world), shuffled.prop_map(|(services, containers, policies, rules)| {
                World { services, containers, policies, rules }
            }))
        }),
        draw in any::<u64>(),
    ) {
        let (one, other) = (world.table(), shuffled.table());
        each_call(|facts| {
            let verdict = decide(&one, &facts, Draw(draw));
            assert_eq!(verdict, decide(&other, &facts, Draw(draw)), "{facts:?}");
            if let Verdict::Forward(to) = verdict {
                assert!(choose(to.endpoints, Draw(draw), &()).is_some());
            }
        });
        prop_assert_eq!(one.problems(), other.problems());
    }

    #[test]
    fn only_allowed_calls_reach_ready_endpoints(world in world(), draw in any::<u64>()) {
        let table = world.table();
        let ready = ready_endpoints(&world.containers);
        each_call(|facts| match decide(&table, &facts, Draw(draw)) {
            Verdict::Forward(to) => {
                assert!(naively_allowed(&world, facts.caller, facts.target, facts.port), "{facts:?}");
                assert!(naively_allowed(&world, facts.caller, to.service, to.port), "{facts:?}");
                assert!(!to.endpoints.is_empty());
                assert!(to.endpoints.iter().all(|endpoint| ready[to.service].contains(endpoint)), "{facts:?}");
            }
            Verdict::Deny(denial) => {
                assert!(!naively_allowed(&world, facts.caller, denial.target, denial.port), "{facts:?}");
                assert!(!denial.policies.is_empty());
            }
            Verdict::NoEndpoint(none) => assert!(table.endpoints(none.service, none.port).is_empty(), "{facts:?}"),
            Verdict::UnknownService => assert!(table.service(facts.target).is_none(), "{facts:?}"),
        });
    }

    #[test]
    fn explanations_agree_with_decisions(world in world()) {
        let table = world.table();
        each_call(|facts| {
            let explanation = explain(&table, &facts);
            for draw in 0..8 {
                let agrees = match decide(&table, &facts, Draw(draw)) {
                    Verdict::Forward(to) => explanation.backends.iter().any(|b| b.is_served() && b.service == *to.service),
                    Verdict::Deny(_) => !explanation.is_allowed(),
                    Verdict::NoEndpoint(none) => {
                        explanation.backends.iter().any(|b| !b.is_served() && b.service == *none.service)
                    }
                    Verdict::UnknownService => !explanation.exists,
                };
                assert!(agrees, "{facts:?} {explanation:?}");
            }
        });
    }
}
