//! Nodes: people decide what a machine may be given, its agent tells how it stands, and what it gave is in a row of its own.

use super::{Given, Kept};
use crate::{
    error::{Error, Result},
    keys::{self, ObjectKey},
    objects::{Objects, Pending, Writer, row_object},
    rows::Rows,
};
use heptad_api::{ErrorCode, fields_of};
use heptad_capacity::Allocation;
use heptad_model::{
    Bytes, Dimension, EventKind, ExtendedResources, Namespace, Node, NodeCondition, NodeName, NodeStatus, Problem,
    ResourceVector, devices, event::MESSAGE_BYTES_MAX, ids::is_label, node::DISK_BYTES_MAX, validate,
};
use heptad_state::KeyValue;
use std::sync::LazyLock;

impl Kept for Node {
    const ALLOCATED: bool = true;
    const FOLLOWED: bool = true;
    const RECONCILED: bool = true;

    fn fields() -> Option<&'static [String]> {
        static FIELDS: LazyLock<Vec<String>> = LazyLock::new(fields_of::<Node>);
        Some(&FIELDS)
    }

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
        for (i, one) in self.conditions.iter().enumerate() {
            let is_twice = self.conditions[..i].iter().any(|other| other.kind == one.kind);
            if is_twice || one.message.len() > MESSAGE_BYTES_MAX {
                let message = format!("{} is said twice, or in more than {MESSAGE_BYTES_MAX} bytes", one.kind);
                problems.push(Problem { path: format!("conditions[{i}]"), message });
            }
        }
        let large = self.disks.iter().filter(|disk| disk.capacity_bytes > DISK_BYTES_MAX);
        problems.extend(large.map(|disk| Problem {
            path: format!("disks.{}", disk.name),
            message: format!("{} is more than a disk can have, {}", Bytes(disk.capacity_bytes), Bytes(DISK_BYTES_MAX)),
        }));
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
        let before = old.map(|old| (old.admitted.clone(), old.offered.clone(), old.set_by_person)).unwrap_or_default();
        (self.admitted, self.offered, self.set_by_person) = before;
        match old {
            Some(old) if given.writer == Writer::Node => as_its_agent_may_tell(self, old),
            // What people say of a machine is so.
            Some(old) if old.machine() != self.machine() => {
                (self.admitted, self.offered, self.set_by_person) = (Some(self.machine()), None, true);
            }
            _ => {}
        }
    }

    fn see(&mut self, node: &dyn Fn(&NodeName, NodeStatus) -> NodeStatus) {
        self.status = node(&self.name, self.status);
    }

    fn told(&self, old: Option<&Self>) -> Vec<(EventKind, String, String)> {
        let before = old.map_or(&[][..], |old| &old.conditions);
        let lacks = |all: &[NodeCondition], one: &NodeCondition| all.iter().all(|other| other.kind != one.kind);
        let came = self.conditions.iter().filter(|one| lacks(before, one));
        let came = came.map(|one| (EventKind::Warning, one.kind.to_string(), one.message.clone()));
        let gone = before.iter().filter(|one| lacks(&self.conditions, one));
        let gone = gone.map(|one| {
            (EventKind::Normal, format!("{}Ended", one.kind), "this no longer keeps new containers off it".to_owned())
        });
        came.chain(gone).chain(more_than_admitted(self, old)).collect()
    }

    async fn unstage(objects: &Objects, _: &Namespace, name: &str, pending: &mut Pending) -> Result<()> {
        let revision = objects.allocation(&name.into()).await?.1;
        // Those of finished jobs too, which take nothing of it: a record without its node is a broken promise.
        let bound = objects.containers_on(&name.into()).await?.items;
        if let Some(first) = bound.first() {
            let (count, first) = (bound.len(), &first.object.id);
            let detail = format!(
                "node/{name} has {count} containers, such as {first}; `heptad node drain {name}`, then `heptad node remove \
                 {name}` takes it out of the cluster with what is on every node"
            );
            return Err(Error::refused(ErrorCode::Conflict, detail));
        }
        let key = keys::allocation(&name.into());
        pending.expect(&key, revision);
        if revision > 0 {
            pending.delete(&key);
        }
        Ok(())
    }

    fn derive(&mut self, allocation: &Allocation) {
        self.allocated = allocation.resources;
        self.allocated_devices = allocation.devices.given();
        self.containers = allocation.containers.iter().cloned().collect();
    }

    fn enter(rows: &mut Rows, _: ObjectKey<'_>, row: &KeyValue) -> Result<()> {
        rows.put_node(row_object(row)?);
        Ok(())
    }

    fn leave(rows: &mut Rows, key: ObjectKey<'_>) {
        rows.delete_node(&key.name.into());
    }
}

/// That an agent tells of more than its node was admitted with, once.
fn more_than_admitted(node: &Node, old: Option<&Node>) -> Option<(EventKind, String, String)> {
    let before = old.and_then(|old| old.offered.as_ref());
    let offered = node.offered.as_ref().filter(|offered| before != Some(offered))?;
    let (name, has) = (&node.name, node.machine());
    let message = format!(
        "its agent tells of {offered}, which is more than it was admitted with; it counts as {has} until somebody who \
             knows the machine says `heptad node admit {name}`"
    );
    Some((EventKind::Warning, "MoreThanAdmitted".to_owned(), message))
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
    let mut admitted = admitted.clone();
    if admitted.disks.is_empty() && !old.set_by_person {
        // Admitted before disks were looked at, or without any.
        let before = old.machine().disks;
        admitted.disks = if before.is_empty() { told.disks.clone() } else { before };
        node.admitted = Some(admitted.clone());
    }
    let believed = if old.set_by_person { told.at_most(&admitted) } else { told.within(&admitted) };
    node.offered = (believed != told).then_some(told);
    node.set_machine(&believed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Disk;

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
        assert_eq!(first.told(Some(&joined)), []);

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
        let told = greedy.told(Some(&cordoned));
        let [(_, reason, text)] = &told[..] else { panic!("{told:?}") };
        assert!(reason == "MoreThanAdmitted" && text.contains("gpu 4") && text.contains("node admit n1"), "{text}");
        // Told once, and no more than that the next time.
        let mut again = Node { devices: [("gpu".to_owned(), 4)].into(), ..Node::new("n1", capacity(100_000)) };
        again.admit(Some(&greedy), &agent);
        assert_eq!((again.capacity, again.told(Some(&greedy))), (capacity(900), vec![]));
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
        // Nothing comes on top of what a person set, however often the agent tells of it.
        let mut large = Node::new("n1", capacity(128_000));
        large.admit(Some(&first), &agent);
        let mut limited = Node { capacity: capacity(640), ..large.clone() };
        limited.admit(Some(&large), &Given::default());
        for told in [128_000, 700, 128_000] {
            let mut again = Node::new("n1", capacity(told));
            again.admit(Some(&limited), &agent);
            assert_eq!((again.capacity, again.offered.is_some()), (capacity(640), true), "{told}");
            // Another change by a person leaves it at that.
            limited = Node { unschedulable: !again.unschedulable, ..again.clone() };
            limited.admit(Some(&again), &Given::default());
        }
    }

    #[test]
    fn a_disk_is_as_large_as_it_was_admitted_with() {
        let with = |disks: &[(&str, u64)]| {
            let disk = |(name, bytes): &(&str, u64)| Disk { name: (*name).to_owned(), capacity_bytes: *bytes };
            Node { disks: disks.iter().map(disk).collect(), ..Node::new("n1", ResourceVector::ZERO) }
        };
        let agent = Given { writer: Writer::Node, ..Given::default() };
        let told = |old: &Node, disks| {
            let mut node = with(disks);
            node.admit(Some(old), &agent);
            node
        };
        let first = told(&with(&[]), &[("disk1", 800)]);
        assert_eq!(first.disks, with(&[("disk1", 800)]).disks);
        let greedy = told(&first, &[("disk1", 1 << 60), ("disk2", 5)]);
        assert_eq!(greedy.disks, with(&[("disk1", 900)]).disks, "an eighth more, and no further disk");
        let words = greedy.told(Some(&first));
        assert!(
            words.iter().any(|(_, reason, text)| reason == "MoreThanAdmitted" && text.contains("disk2")),
            "{words:?}"
        );
        assert_eq!(told(&greedy, &[("disk1", 300)]).disks, with(&[("disk1", 300)]).disks, "less is believed");
        // One that was admitted before disks were looked at keeps those that it has.
        let mut earlier = with(&[("disk1", 800)]);
        earlier.admitted = Some(Default::default());
        assert_eq!(told(&earlier, &[("disk1", 1 << 60)]).disks, with(&[("disk1", 900)]).disks);
        let problems = with(&[("disk1", 1_000_000_000_000_000_000)]).problems(&Given::default());
        assert_eq!(problems.iter().map(|p| &p.path[..]).collect::<Vec<_>>(), ["disks.disk1"]);
    }

    #[test]
    fn a_node_cannot_lose_devices_that_it_gave() {
        let grant = heptad_capacity::Grant { millis: 500, indices: vec![1] };
        let devices = heptad_capacity::DeviceGrants([("gpu".to_owned(), [("c".into(), grant)].into())].into());
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
