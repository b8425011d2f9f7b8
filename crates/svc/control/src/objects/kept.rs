//! The kinds of objects that are kept: what is checked of each on a write, and what the server sets whatever clients say.

use super::Writer;
use heptad_api::Resource;
use heptad_model::{
    Config, Container, Dimension, Event, ExtendedResources, NetworkPolicy, Node, NodeStatus, Problem, Quota,
    ResourceVector, Secret, Service, TrafficRule, Validate, devices, ids::is_label, validate,
};
use heptad_sched::Allocation;
use std::net::Ipv4Addr;

/// What the server has at hand for an object that is written.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// A fresh identifier.
    pub id: String,
    /// A free service address, if the object needs one.
    pub address: Option<Ipv4Addr>,
    /// What the node gave, if the object is a node.
    pub allocation: Allocation,
    /// Who writes it.
    pub writer: Writer,
}

/// An object as the state store keeps it.
pub trait Kept: Resource + PartialEq {
    /// Whether each gets an address.
    const ADDRESSED: bool = false;
    /// Whether unknown fields are refused by the type itself.
    const STRICT: bool = true;

    /// All that is wrong with it.
    fn problems(&self, given: &Given) -> Vec<Problem>;

    /// Sets what the server keeps, from what was there before.
    fn admit(&mut self, old: Option<&Self>, given: &Given);

    /// Fills in what is derived when it is read.
    fn derive(&mut self, _allocation: &Allocation) {}

    /// What is to be told of the change, as an event: its reason and its text.
    fn warning(&self, _old: Option<&Self>) -> Option<(&'static str, String)> {
        None
    }

    /// Whether it wants a new address.
    fn wants_address(&self, _old: Option<&Self>) -> bool {
        false
    }
}

/// The identifier that stays, or a fresh one.
fn kept_id(old: Option<&str>, given: &Given) -> String {
    old.filter(|id| !id.is_empty()).unwrap_or(&given.id).to_owned()
}

impl Kept for Service {
    const ADDRESSED: bool = true;

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
        self.address = old.and_then(|old| old.address).or(given.address);
        self.split = old.and_then(|old| old.split);
        self.restarts_asked = old.map_or(0, |old| old.restarts_asked);
        // The state knows it; it is told where it is needed.
        self.created_revision = 0;
        self.generation = old.map_or(1, |old| old.generation);
        if old.is_some_and(|old| old != self) {
            self.generation += 1;
        }
    }

    fn wants_address(&self, old: Option<&Self>) -> bool {
        old.is_none_or(|old| old.address.is_none())
    }
}

impl Kept for Config {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
        self.generation = old.map_or(1, |old| old.generation + u64::from(old.data != self.data));
    }
}

impl Kept for Secret {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    /// Its values, and whether they changed, are looked at where they are sealed.
    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }
}

impl Kept for NetworkPolicy {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }
}

impl Kept for TrafficRule {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }
}

impl Kept for Quota {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        self.validate()
    }

    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        self.id = kept_id(old.map(|old| old.id.as_str()), given);
    }
}

impl Kept for Node {
    const STRICT: bool = false;

    fn problems(&self, given: &Given) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !is_label(self.name.as_str()) {
            let message = format!("`{}` is not a name; use lower-case letters, digits and `-`", self.name);
            problems.push(Problem { path: "name".into(), message });
        }
        problems.extend(devices::device_problems(&self.devices));
        problems.extend(fewer_devices(self, &given.allocation));
        let given = given.allocation.resources;
        for d in Dimension::ALL.into_iter().filter(|d| given.get(*d) > self.capacity.get(*d)) {
            let (has, gave) = (d.show(self.capacity.get(d)), d.show(given.get(d)));
            let message = format!("{has} is less than the {gave} that its containers were given; stop some first");
            problems.push(Problem { path: format!("capacity.{d}"), message });
        }
        problems.extend(validate::taints(&self.taints));
        problems
    }

    /// What a node gave is in a row of its own.
    fn admit(&mut self, old: Option<&Self>, given: &Given) {
        if let Some(old) = old.filter(|old| !old.id.is_empty()) {
            self.id = old.id.clone();
        } else if self.id.is_empty() {
            self.id = given.id.clone();
        }
        // Operations of their own set these, not whoever registers the node.
        self.draining = old.is_some_and(|old| old.draining);
        self.removing = old.is_some_and(|old| old.removing);
        self.fenced = old.is_some_and(|old| old.fenced) && self.status != NodeStatus::Ready;
        self.allocated = ResourceVector::ZERO;
        self.allocated_devices = ExtendedResources::new();
        self.containers.clear();
        // Only a join says what the key of a node is.
        self.key_sha256 = old.and_then(|old| old.key_sha256.clone());
        self.address = self.address.or(old.and_then(|old| old.address));
        let before = old.map(|old| (old.admitted.clone(), old.offered.clone())).unwrap_or_default();
        (self.admitted, self.offered) = before;
        match old {
            Some(old) if given.writer == Writer::Node => as_its_agent_may_tell(self, old),
            // What people say of a machine is so.
            Some(old) if old.machine() != self.machine() => {
                (self.admitted, self.offered) = (Some(self.machine()), None);
            }
            _ => {}
        }
    }

    fn warning(&self, old: Option<&Self>) -> Option<(&'static str, String)> {
        let offered =
            self.offered.as_ref().filter(|offered| old.and_then(|old| old.offered.as_ref()) != Some(offered))?;
        let (name, has) = (&self.name, self.machine());
        let message = format!(
            "its agent tells of {offered}, which is more than it was admitted with; it counts as {has} until somebody who \
             knows the machine says `heptad node admit {name}`"
        );
        Some(("MoreThanAdmitted", message))
    }

    fn derive(&mut self, allocation: &Allocation) {
        self.allocated = allocation.resources;
        self.allocated_devices = allocation.devices.given();
        self.containers = allocation.containers.iter().cloned().collect();
    }
}

/// Labels below this are told by the node's agent.
const OWN_LABELS: &str = "heptad.dev/";

/// Takes back what an agent told of things that people decide: whether containers come, where the node is found, and how
/// large the machine is once it was admitted.
fn as_its_agent_may_tell(node: &mut Node, old: &Node) {
    node.unschedulable = old.unschedulable;
    node.taints.clone_from(&old.taints);
    node.address = old.address.or(node.address);
    let told = node.machine();
    let Some(admitted) = &old.admitted else {
        node.admitted = Some(told);
        return;
    };
    let believed = told.within(admitted);
    node.offered = (believed != told).then_some(told);
    (node.capacity, node.devices) = (believed.capacity, believed.devices);
    let own = std::mem::take(&mut node.labels).into_iter().filter(|(key, _)| key.starts_with(OWN_LABELS));
    node.labels = old.labels.clone().into_iter().filter(|(key, _)| !key.starts_with(OWN_LABELS)).chain(own).collect();
}

/// Devices that the node does not have any more although containers have them.
fn fewer_devices(node: &Node, given: &Allocation) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (kind, grants) in &given.devices.0 {
        let count = node.devices.get(kind).copied().unwrap_or(0);
        let highest = grants.values().flat_map(|grant| &grant.indices).max();
        if let Some(highest) = highest.filter(|index| **index >= count) {
            let message = format!("there are {count}, and a container has the one of index {highest}; stop it first");
            problems.push(Problem { path: format!("devices.{kind}"), message });
        }
    }
    problems
}

impl Kept for Container {
    fn problems(&self, _given: &Given) -> Vec<Problem> {
        Vec::new()
    }

    fn admit(&mut self, _old: Option<&Self>, _given: &Given) {}
}

/// Longest text of an event.
const EVENT_TEXT_BYTES_MAX: usize = 4_096;

impl Kept for Event {
    const STRICT: bool = false;

    fn problems(&self, _given: &Given) -> Vec<Problem> {
        let texts = [("reason", &self.reason, 63), ("subject", &self.subject, 253)];
        let texts = texts.into_iter().chain([("message", &self.message, EVENT_TEXT_BYTES_MAX)]);
        let long = texts.filter(|(_, text, bytes_max)| text.len() > *bytes_max);
        long.map(|(path, _, bytes_max)| Problem {
            path: path.into(),
            message: format!("it is longer than {bytes_max} bytes"),
        })
        .collect()
    }

    fn admit(&mut self, _old: Option<&Self>, given: &Given) {
        self.id = given.id.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::quantity::Bytes;

    #[test]
    fn the_server_keeps_what_is_its_own_and_counts_changes_of_the_rest() {
        let given = Given { id: "new".into(), address: Some(Ipv4Addr::new(10, 96, 0, 9)), ..Given::default() };
        let mut first = Service { id: "mine".into(), generation: 9, ..Service::new("web", "host") };
        first.admit(None, &given);
        assert_eq!((first.id.as_str(), first.generation, first.address), ("new", 1, given.address));
        let later = Given { id: "later".into(), ..Given::default() };
        let mut same = Service { address: None, ..Service::new("web", "host") };
        same.admit(Some(&first), &later);
        assert_eq!(same, first);
        let mut changed = Service { replicas: 2, generation: 77, ..Service::new("web", "host") };
        changed.admit(Some(&first), &later);
        assert_eq!((changed.id.as_str(), changed.generation, changed.address), ("new", 2, first.address));
    }

    #[test]
    fn a_node_cannot_shrink_below_what_it_gave() {
        let capacity = |bytes| ResourceVector { memory: Bytes(bytes), ..ResourceVector::ZERO };
        let allocation = Allocation { resources: capacity(10), ..Allocation::default() };
        let given = Given { allocation, ..Given::default() };
        assert_eq!(Node::new("n1", capacity(10)).problems(&given), []);
        let paths: Vec<String> = Node::new("N1", capacity(9)).problems(&given).into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["name", "capacity.memory"]);
    }

    #[test]
    fn what_people_set_on_a_node_people_change() {
        let capacity = |mib| ResourceVector { memory: Bytes::mib(mib), ..ResourceVector::ZERO };
        let (address, other) = ("10.0.0.2:7444".parse().ok(), "10.0.0.9:7444".parse().ok());
        let joined = Node { address, ..Node::new("n1", ResourceVector::ZERO) };
        let agent = Given { writer: Writer::Node, ..Given::default() };
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        // The first registration says what the machine is.
        let mut first = Node { labels: [label("zone", "a")].into(), ..Node::new("n1", capacity(800)) };
        first.admit(Some(&joined), &agent);
        assert_eq!((first.capacity, first.address, &first.labels["zone"][..]), (capacity(800), address, "a"));
        assert!(first.warning(Some(&joined)).is_none());

        let taint = heptad_model::Taint {
            key: "quarantine".into(),
            value: String::new(),
            effect: heptad_model::TaintEffect::NoExecute,
        };
        let cordoned = Node { unschedulable: true, taints: vec![taint], ..first.clone() };
        let devices = [("gpu".to_owned(), 4)].into();
        let mut greedy = Node { address: other, devices, ..Node::new("n1", capacity(100_000)) };
        greedy.labels = [label("zone", "b"), label("role", "vault"), label("heptad.dev/arch", "arm64")].into();
        greedy.admit(Some(&cordoned), &agent);
        assert!(greedy.unschedulable && greedy.taints == cordoned.taints && greedy.address == address);
        assert_eq!(greedy.labels, [label("zone", "a"), label("heptad.dev/arch", "arm64")].into());
        assert_eq!((greedy.capacity, greedy.devices.len()), (capacity(900), 0), "an eighth more, and no device");
        let (reason, text) = greedy.warning(Some(&cordoned)).expect("it is told");
        assert!(reason == "MoreThanAdmitted" && text.contains("gpu 4") && text.contains("node admit n1"), "{text}");
        // Told once, and no more than that the next time.
        let mut again = Node { devices: [("gpu".to_owned(), 4)].into(), ..Node::new("n1", capacity(100_000)) };
        again.admit(Some(&greedy), &agent);
        assert_eq!((again.capacity, again.warning(Some(&greedy))), (capacity(900), None));
        // Less is believed, and what a person says.
        let mut less = Node::new("n1", capacity(400));
        less.admit(Some(&again), &agent);
        assert_eq!((less.capacity, less.offered.clone()), (capacity(400), None));
        let mut person = Node { address: other, ..Node::new("n1", capacity(64_000)) };
        person.admit(Some(&less), &Given::default());
        assert!(!person.unschedulable && person.address == other);
        let mut grown = Node::new("n1", capacity(64_000));
        grown.admit(Some(&person), &agent);
        assert_eq!((grown.capacity, grown.offered), (capacity(64_000), None));
    }

    #[test]
    fn a_node_cannot_lose_devices_that_it_gave() {
        let grant = heptad_sched::Grant { millis: 500, indices: vec![1] };
        let devices = heptad_sched::DeviceGrants([("gpu".to_owned(), [("c".into(), grant)].into())].into());
        let given = Given { allocation: Allocation { devices, ..Allocation::default() }, ..Given::default() };
        let node =
            |count| Node { devices: [("gpu".to_owned(), count)].into(), ..Node::new("n1", ResourceVector::ZERO) };
        assert_eq!(node(2).problems(&given), []);
        let paths = |node: Node| node.problems(&given).into_iter().map(|p| p.path).collect::<Vec<_>>();
        assert_eq!(paths(node(1)), ["devices.gpu"]);
        assert_eq!(paths(Node::new("n1", ResourceVector::ZERO)), ["devices.gpu"]);
        assert_eq!(paths(node(99)), ["devices.gpu"]);
    }
}
