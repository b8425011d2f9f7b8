//! The decision on chosen values.

use super::*;
use crate::{
    Admission, Arrival, admit,
    balance::{Balancer, choose},
    explain, revoked,
};
use heptad_model::{DesiredState, Endpoint, Expose, NodeName};

#[test]
fn a_service_that_no_policy_selects_is_open() {
    let table = table(&[service("web"), service("db")], &[], &[]);
    for caller in ["web", "external", "operator", "deleted"] {
        assert_eq!(outcome(&get(&table, caller, "db", "/", 0)), "db", "{caller}");
    }
    assert_eq!(outcome(&get(&table, "web", "none", "/", 0)), "unknown");
}

#[test]
fn a_selected_service_is_called_only_by_those_listed() {
    let outside = PolicyPeer { external: true, ..PolicyPeer::default() };
    let policies = [
        policy("web-only", "db", Some(&[peer("web")]), None),
        policy("nobody", "db", Some(&[]), None),
        policy("front", "web", Some(&[outside]), None),
        policy("tied", "job", None, Some(&[peer("web")])),
    ];
    let table = table(&[service("web"), service("db"), service("job")], &policies, &[]);
    let denied = "ingress denied by default/nobody,default/web-only";
    for (caller, target, expected) in [
        ("web", "db", "db"),
        ("job", "db", denied),
        ("external", "db", denied),
        ("deleted", "db", denied),
        ("operator", "db", "db"),
        ("external", "web", "web"),
        ("db", "web", "ingress denied by default/front"),
        ("job", "web", "ingress denied by default/front"),
        ("job", "job", "egress denied by default/tied"),
        ("web", "job", "job"),
    ] {
        assert_eq!(outcome(&get(&table, caller, target, "/", 0)), expected, "{caller} -> {target}");
    }
    let Verdict::Deny(denial) = get(&table, "job", "db", "/", 0) else { panic!("it is denied") };
    assert_eq!(
        denial.to_string(),
        "default/job may not call default/db on port 80: the ingress policies of default/db do not allow it \
         (default/nobody, default/web-only)"
    );
}

#[test]
fn peers_may_be_limited_to_ports() {
    let limited = PolicyPeer { ports: vec![81], ..peer("web") };
    let table = table(&[service("web"), service("db")], &[policy("p", "db", Some(&[limited]), None)], &[]);
    assert_eq!(outcome(&get(&table, "web", "db", "/", 0)), "ingress denied by default/p");
}

#[test]
fn policies_bind_the_backend_that_a_rule_chooses_too() {
    let services = [service("web"), service("web-v2"), service("client")];
    let policies = [policy("closed", "web-v2", Some(&[]), None)];
    let rules = [rule("canary", 0, &[("path", "Prefix", "/new")], &[("web-v2", 1)])];
    let table = table(&services, &policies, &rules);
    assert_eq!(outcome(&get(&table, "client", "web", "/old", 0)), "web");
    assert_eq!(outcome(&get(&table, "client", "web", "/new/x", 0)), "ingress denied by default/closed");
}

#[test]
fn precedence_is_priority_then_conditions_then_name() {
    let services = ["web", "a", "b", "c", "d"].map(service);
    let rules = [
        rule("z-high", 5, &[("path", "Prefix", "/high")], &[("a", 1)]),
        rule("y-one", 0, &[("path", "Prefix", "/p")], &[("b", 1)]),
        rule("x-two", 0, &[("path", "Prefix", "/p"), ("method", "Equals", "GET")], &[("c", 1)]),
        rule("m-all", -1, &[], &[("d", 1)]),
        rule("n-all", -1, &[], &[("a", 1)]),
    ];
    let table = table(&services, &[], &rules);
    for (path, expected) in [("/high", "a"), ("/p", "c"), ("/other", "d")] {
        assert_eq!(outcome(&get(&table, "web", "web", path, 0)), expected, "{path}");
    }
}

#[test]
fn backends_get_their_share() {
    let services = ["web", "v1", "v2", "v3"].map(service);
    let table = table(&services, &[], &[rule("split", 0, &[], &[("v1", 90), ("v2", 10), ("v3", 0)])]);
    let draws = 100_000_u64;
    let v2 = (0..draws).filter(|&draw| outcome(&get(&table, "web", "web", "/", draw)) == "v2").count();
    let v3 = (0..draws).filter(|&draw| outcome(&get(&table, "web", "web", "/", draw)) == "v3").count();
    // Five standard deviations of a binomial distribution are 474.
    assert!((9_500..=10_500).contains(&v2), "{v2} of {draws}");
    assert_eq!(v3, 0);
}

#[test]
fn what_cannot_be_served_is_said() {
    let idle = Service { replicas: 0, ..service("idle") };
    let services = [service("web"), idle, service("down")];
    let containers = [container(&services[2], 1, false)];
    let rules = [
        rule("gone", 0, &[("path", "Equals", "/gone")], &[("none", 1)]),
        rule("down", 0, &[("path", "Equals", "/down")], &[("down", 1)]),
        rule("idle", 0, &[("path", "Equals", "/idle")], &[("idle", 1)]),
    ];
    let table = Table::build(&Inputs { services: &services, containers: &containers, policies: &[], rules: &rules });
    for (path, expected) in [
        ("/gone", "the service default/none does not exist (chosen by the traffic rule `gone`)"),
        ("/down", "none of the 1 replicas of default/down is ready (chosen by the traffic rule `down`)"),
        ("/idle", "default/idle is scaled to 0 replicas (chosen by the traffic rule `idle`)"),
        ("/", "none of the 1 replicas of default/web is ready"),
    ] {
        assert_eq!(outcome(&get(&table, "web", "web", path, 0)), expected);
    }
    let facts = Facts { caller: &Caller::Operator, target: &key("web"), port: 9, http: None };
    assert_eq!(outcome(&decide(&table, &facts, Draw(0))), "default/web has no TCP port 9, only [80]");
}

#[test]
fn a_backend_without_the_addressed_port_is_called_on_its_first() {
    let other = Service { ports: vec![Port::tcp(8080)], ..service("v2") };
    let table = table(&[service("web"), other], &[], &[rule("all", 0, &[], &[("v2", 1)])]);
    let Verdict::Forward(to) = get(&table, "web", "web", "/", 0) else { panic!("it is served") };
    assert_eq!((to.port, to.endpoints[0].port, to.rule), (8080, 8080, Some("all")));
}

#[test]
fn containers_that_stop_or_belong_to_an_earlier_service_get_nothing() {
    let web = service("web");
    let stopping = Container { desired: DesiredState::Stopped, ..container(&web, 1, true) };
    let earlier = Container { service_id: "id-before".to_owned(), ..container(&web, 2, true) };
    let containers = [stopping, earlier];
    let services = [web];
    let built = Table::build(&Inputs { services: &services, containers: &containers, ..Inputs::default() });
    assert_eq!(built.endpoints(&key("web"), 80), []);
    assert_eq!(built.service_of(&ContainerId::from("web-1")), Some(&key("web")));
    let later = built.with_containers(&[container(&services[0], 3, true)]);
    assert_eq!(later.endpoints(&key("web"), 80).len(), 1);
    assert_eq!(later.service_of(&ContainerId::from("web-1")), None);
}

#[test]
fn what_other_nodes_send_is_admitted_by_this_nodes_own_table() {
    let on = |service: &Service, number, node: &str| Container {
        node: Some(node.into()),
        ..container(service, number, true)
    };
    let services = [service("web"), service("client"), service("stranger")];
    let containers = [on(&services[0], 1, "n1"), on(&services[1], 2, "n2"), on(&services[2], 3, "n2")];
    let policies = [policy("web-callers", "web", Some(&[peer("client")]), None)];
    let inputs = Inputs { services: &services, containers: &containers, policies: &policies, rules: &[] };
    let table = Table::build(&inputs).at_revision(7);
    assert_eq!(table.with_containers(&[]).revision(), 7);
    let (n1, n2, n3) = (NodeName::from("n1"), NodeName::from("n2"), NodeName::from("n3"));
    let admitted = |from: Option<&NodeName>, from_server, caller: Caller, node: &NodeName, container: &str, port| {
        let container = &ContainerId::from(container);
        match admit(&table, &Arrival { from, from_server, caller: &caller, node, container, port }) {
            Admission::Forward { endpoint, .. } => endpoint.container.to_string(),
            Admission::Deny(denial) => denial.to_string(),
            Admission::Impostor => "impostor".to_owned(),
            Admission::Gone => "gone".to_owned(),
        }
    };
    let of = |name: &str| Caller::Service(key(name));
    assert_eq!(admitted(Some(&n2), false, of("client"), &n1, "web-1", 80), "web-1");
    // A node speaks only for services whose containers it has; a server for any service that people name, and for the
    // operator.
    assert_eq!(admitted(Some(&n3), false, of("client"), &n1, "web-1", 80), "impostor");
    assert_eq!(admitted(None, true, of("client"), &n1, "web-1", 80), "web-1");
    assert!(admitted(None, true, of("stranger"), &n1, "web-1", 80).contains("may not call default/web"));
    assert_eq!(admitted(Some(&n2), false, Caller::Operator, &n1, "web-1", 80), "impostor");
    assert_eq!(admitted(None, true, Caller::Operator, &n1, "web-1", 80), "web-1");
    // The policies of the receiving side hold, whatever the sender claims to have checked.
    assert!(admitted(Some(&n2), false, of("stranger"), &n1, "web-1", 80).contains("may not call default/web"));
    assert!(admitted(Some(&n3), false, Caller::External, &n1, "web-1", 80).contains("external may not call"));
    // Only containers of the receiving node are reached, and only on ports that they serve.
    assert_eq!(admitted(Some(&n2), false, of("client"), &n3, "web-1", 80), "gone");
    assert_eq!(admitted(Some(&n2), false, of("client"), &n1, "web-9", 80), "gone");
    assert_eq!(admitted(Some(&n2), false, of("client"), &n1, "web-1", 81), "gone");
}

#[test]
fn services_are_found_by_address_and_by_host() {
    let expose = |host: &str| Some(Expose { host: host.to_owned(), port: None });
    let web = Service { address: Some([10, 96, 0, 1].into()), expose: expose("Shop.example.com"), ..service("web") };
    let (web, late) = (Service { created_revision: 7, ..web }, service("a-late"));
    let late = Service { expose: expose("shop.example.com"), created_revision: 9, ..late };
    let table = table(&[late, web], &[], &[]);
    assert_eq!(table.service_at([10, 96, 0, 1].into()), Some(&key("web")));
    assert_eq!(table.service_at([10, 96, 0, 2].into()), None);
    for host in ["SHOP.example.com", "shop.example.com", "shop.example.com."] {
        assert_eq!(table.service_exposed_as(host), Some((&key("web"), 80)), "the older one has it");
    }
    assert_eq!(table.problems().len(), 1, "{:?}", table.problems());
}

#[test]
fn rules_that_do_not_compile_are_left_out_and_named() {
    let table = table(&[service("web")], &[], &[rule("bad", 0, &[("path", "Regex", "(")], &[("web", 1)])]);
    assert_eq!(outcome(&get(&table, "web", "web", "/", 0)), "web");
    assert!(table.problems()[0].to_string().contains("default/bad"), "{:?}", table.problems());
}

#[test]
fn of_two_endpoints_the_less_active_is_chosen() {
    struct Busy;
    impl Balancer for Busy {
        fn active(&self, endpoint: &Endpoint) -> u32 {
            endpoint.port.into()
        }
        fn excluded(&self, endpoint: &Endpoint) -> bool {
            endpoint.port == 0
        }
    }
    let address = |port: u16| ([127, 0, 0, 1], port).into();
    let container = ContainerId::default();
    let endpoint = |port| Endpoint { container: container.clone(), port, address: address(port), node: None };
    let endpoints: Vec<Endpoint> = (0..3).map(endpoint).collect();
    let mut counts = [0; 3];
    for draw in 0..30_000 {
        counts[usize::from(choose(&endpoints, Draw(draw), &()).expect("one is there").port)] += 1;
        // 0 is excluded, and of 1 and 2 the less active 1 wins whenever both are drawn or 0 is drawn with 1.
        assert_ne!(choose(&endpoints, Draw(draw), &Busy).expect("one is left").port, 0);
        assert_eq!(choose(&endpoints[1..], Draw(draw), &Busy).expect("one is there").port, 1);
    }
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    assert_eq!(choose(&endpoints[..1], Draw(0), &Busy), None);
    assert_eq!(choose(&[], Draw(0), &()), None);
}

#[test]
fn explanations_name_policies_rules_and_shares() {
    let policies = [policy("web-only", "db", Some(&[peer("web")]), None)];
    let rules = [
        rule("beta", 1, &[("path", "Prefix", "/beta")], &[("db", 1)]),
        rule("split", 0, &[], &[("web", 3), ("db", 1)]),
    ];
    let table = table(&[service("web"), service("db"), service("job")], &policies, &rules);
    let http = HttpFacts { method: "GET", path: "/", query: None, headers: &NoHeaders };
    let caller = Caller::Service(key("job"));
    let facts = Facts { caller: &caller, target: &key("web"), port: 80, http: Some(http) };
    assert_eq!(
        explain(&table, &facts).to_string(),
        "default/job may not call default/web on port 80\n  \
           ingress of default/web: open, no policy selects it\n  \
           egress of default/job: open, no policy selects it\n  \
           rule beta: fails on path Prefix `/beta`\n  \
           rule split: holds\n  \
           75.0 % to default/web on port 80, 1 ready\n  \
           25.0 % to default/db on port 80, 1 ready\n    \
             ingress of default/db: denied, selected by default/web-only\n    \
             egress of default/job: open, no policy selects it"
    );
}

#[test]
fn a_revision_gets_its_share_whatever_the_number_of_its_containers() {
    let mut web = service("web");
    let mut containers: Vec<_> = (1..=5).map(|number| container(&web, number, true)).collect();
    for (made, revision) in containers.iter_mut().zip([1, 1, 1, 1, 2]) {
        made.revision = revision;
    }
    let of_new = |web: &Service, containers: &[Container]| {
        let services = std::slice::from_ref(web);
        let table = Table::build(&Inputs { services, containers, ..Inputs::default() });
        let chosen = (0..4_000u64).filter(|draw| {
            let Verdict::Forward(to) = get(&table, "external", "web", "/", *draw) else { panic!("nobody serves") };
            to.endpoints.iter().all(|endpoint| endpoint.container.as_str() == "web-5")
        });
        chosen.count()
    };
    assert_eq!(of_new(&web, &containers), 0, "without a split all are one");
    for (percent, least, most) in [(0, 0, 0), (100, 4_000, 4_000), (10, 300, 500), (50, 1_850, 2_150)] {
        web.split = Some(heptad_model::TrafficSplit { revision: 2, percent });
        let count = of_new(&web, &containers);
        assert!((least..=most).contains(&count), "{percent} %: {count} of 4000");
    }
    // A side without a ready container leaves its share to the other.
    containers[4].ready = false;
    assert_eq!(of_new(&web, &containers), 0);
    containers[4].ready = true;
    containers[..4].iter_mut().for_each(|old| old.ready = false);
    web.split = Some(heptad_model::TrafficSplit { revision: 2, percent: 0 });
    assert_eq!(of_new(&web, &containers), 4_000);
}

#[test]
fn every_spelling_of_a_path_meets_the_rules_on_it() {
    let services = [service("web"), service("guard")];
    let guarded = [rule("guarded", 0, &[("path", "Prefix", "/admin")], &[("guard", 1)])];
    let table = table(&services, &[], &guarded);
    for path in ["/admin", "//admin", "/%61dmin", "/./admin", "/x/../admin", "/x/%2e%2E/%61dmin/..//admin", "/../admin"]
    {
        assert_eq!(outcome(&get(&table, "external", "web", path, 0)), "guard", "{path}");
        let passed_on = table.path_for(&key("web"), path).expect("one reading");
        assert!(passed_on.starts_with("/admin"), "{path} is passed on as {passed_on}");
    }
    for path in ["/%2fadmin", "/x%2F..%2fadmin", "/\\admin", "/x%5c..%5cadmin", "/admin/..%2fpublic", "/x%00"] {
        let refused = table.path_for(&key("web"), path).expect_err(path);
        assert!(refused.to_string().contains("default/web"), "{refused}");
    }
    // What rules do not distinguish is harmless, and a service without such rules gets what was sent.
    assert_eq!(table.path_for(&key("web"), "/@scope%2fname").expect("one verdict"), "/@scope%2Fname");
    for path in ["//a/../%61", "/x%2f..%2fadmin"] {
        assert_eq!(table.path_for(&key("guard"), path).expect("no rules"), path);
    }
}

#[test]
fn rules_may_spell_characters_as_they_like() {
    let services = [service("web"), service("guard")];
    for value in ["/caf\u{e9}", "/caf%c3%a9", "/%63af%C3%A9"] {
        let rules = [rule("guarded", 0, &[("path", "Equals", value)], &[("guard", 1)])];
        let table = table(&services, &[], &rules);
        for path in ["/caf%C3%A9", "/caf%c3%a9", "//caf\u{e9}"] {
            assert_eq!(outcome(&get(&table, "web", "web", path, 0)), "guard", "{value} {path}");
            table.path_for(&key("web"), path).expect("one reading");
        }
    }
}

#[test]
fn only_a_policy_ends_a_flow_that_was_allowed() {
    let services = [service("web"), service("db")];
    let open = table(&services, &[], &[]);
    let closed = table(&services, &[policy("closed", "db", Some(&[]), None)], &[]);
    let gone = table(&services[..1], &[], &[]);
    let web = Caller::Service(key("web"));
    assert_eq!(revoked(&open, &web, &key("db"), 80), None);
    let denial = revoked(&closed, &web, &key("db"), 80).expect("denied");
    assert_eq!(denial.policies, ["default/closed"]);
    assert!(revoked(&closed, &Caller::External, &key("db"), 80).is_some());
    for (table, caller) in [(&gone, &web), (&closed, &Caller::Service(key("deleted"))), (&closed, &Caller::Operator)] {
        assert_eq!(revoked(table, caller, &key("db"), 80), None, "{caller}");
    }
}

#[test]
fn addresses_are_named_with_the_ports_at_which_something_can_be_served() {
    let at = |last: u8, made: Service| Service { address: Some([10, 96, 0, last].into()), ..made };
    let services = [at(1, service("web")), at(2, service("next")), service("no-address")];
    let ready = |service: &Service, is_ready| container(service, 1, is_ready);
    let rules = [rule("some", 0, &[("path", "Prefix", "/next")], &[("next", 1)])];
    let served = |rules: &[TrafficRule], containers: &[Container]| {
        let table = Table::build(&Inputs { services: &services, containers, policies: &[], rules });
        let ports = |last: u8| table.served().remove(&[10, 96, 0, last].into()).map(Vec::from_iter);
        (ports(1).expect("it has an address"), ports(2).expect("it has an address"))
    };
    assert_eq!(served(&[], &[]), (vec![], vec![]));
    assert_eq!(served(&[], &[ready(&services[0], false)]), (vec![], vec![]));
    assert_eq!(served(&[], &[ready(&services[0], true)]), (vec![80], vec![]));
    assert_eq!(served(&[], &[ready(&services[1], true)]), (vec![], vec![80]));
    assert_eq!(served(&rules, &[ready(&services[1], true)]), (vec![80], vec![80]), "a rule may send requests there");
    let table = Table::build(&Inputs { services: &services, ..Inputs::default() });
    let with = table.with_containers(&[ready(&services[0], true)]);
    assert!(with.has_endpoint(&"web-1".into()) && !with.has_endpoint(&"next-1".into()));
    assert!(!table.with_containers(&[ready(&services[0], false)]).has_endpoint(&"web-1".into()));
}
