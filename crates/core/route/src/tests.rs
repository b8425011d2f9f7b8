//! Values and properties of the decision: precedence, weights, policies against a second, naive evaluation,
//! independence of order, and that nothing unready or denied is ever reached.

mod properties;
mod values;

use crate::{Caller, Draw, Facts, HttpFacts, Inputs, NoHeaders, Table, Verdict, decide};
use heptad_model::{
    Container, ContainerId, ContainerStatus, NetworkPolicy, PolicyPeer, Port, Selector, Service, ServiceKey,
    TrafficRule, WeightedBackend,
};
use std::net::SocketAddr;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn service(name: &str) -> Service {
    Service { ports: vec![Port::tcp(80)], id: format!("id-{name}"), ..Service::new(name, "image") }
}

fn container(of: &Service, number: u8, ready: bool) -> Container {
    let mut made = Container::pending(ContainerId(format!("{}-{number}", of.name)), of, 0);
    (made.status, made.ready) = (ContainerStatus::Running, ready);
    for port in &of.ports {
        made.addresses.insert(port.container_port, SocketAddr::from(([10, 0, 0, number], port.container_port)));
    }
    made
}

fn policy(name: &str, selects: &str, ingress: Option<&[PolicyPeer]>, egress: Option<&[PolicyPeer]>) -> NetworkPolicy {
    NetworkPolicy {
        id: String::new(),
        name: name.to_owned(),
        namespace: Default::default(),
        selector: Selector { services: vec![selects.to_owned()], ..Selector::default() },
        ingress: ingress.map(<[_]>::to_vec),
        egress: egress.map(<[_]>::to_vec),
    }
}

fn peer(name: &str) -> PolicyPeer {
    PolicyPeer { services: vec![name.to_owned()], ..PolicyPeer::default() }
}

fn rule(name: &str, priority: i32, conditions: &[(&str, &str, &str)], backends: &[(&str, u32)]) -> TrafficRule {
    let conditions = conditions.iter().map(|(field, operator, value)| {
        let text = format!(r#"{{"field":"{field}","operator":"{operator}","value":"{value}"}}"#);
        serde_json::from_str(&text).expect("a condition")
    });
    TrafficRule {
        id: String::new(),
        name: name.to_owned(),
        namespace: Default::default(),
        service: "web".to_owned(),
        priority,
        conditions: conditions.collect(),
        backends: backends.iter().map(|&(name, weight)| WeightedBackend { service: name.to_owned(), weight }).collect(),
    }
}

/// A table of services with one ready container each.
fn table(services: &[Service], policies: &[NetworkPolicy], rules: &[TrafficRule]) -> Table {
    let containers: Vec<Container> = services.iter().zip(1..).map(|(s, number)| container(s, number, true)).collect();
    Table::build(&Inputs { services, containers: &containers, policies, rules })
}

fn get<'t>(table: &'t Table, caller: &str, target: &str, path: &str, draw: u64) -> Verdict<'t> {
    let caller = match caller {
        "external" => Caller::External,
        "operator" => Caller::Operator,
        name => Caller::Service(key(name)),
    };
    let http = HttpFacts { method: "GET", path, query: None, headers: &NoHeaders };
    decide(table, &Facts { caller: &caller, target: &key(target), port: 80, http: Some(http) }, Draw(draw))
}

/// Which container serves, or why none does, in a word.
fn outcome(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Forward(to) => to.service.name.clone(),
        Verdict::Deny(denial) => format!("{} denied by {}", denial.direction, denial.policies.join(",")),
        Verdict::NoEndpoint(none) => none.to_string(),
        Verdict::UnknownService => "unknown".to_owned(),
    }
}
