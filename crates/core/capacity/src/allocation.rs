//! What one node has given: the row that planner and committer read and write. Binding refuses to exceed a capacity.
//! Knows no store: whoever commits a row compares it with the one that was read.

use crate::{
    devices::{self, DeviceGrants},
    reason::Reason,
    request::{HostPort, Request},
};
use heptad_model::{
    Container, ContainerId, DEVICE_MILLIS, DeviceCounts, DeviceIndices, DeviceMillis, Dimension, ResourceVector,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;

/// What a node has given to the containers that are bound to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocation {
    /// The sum of their resources.
    pub resources: ResourceVector,
    /// Their host ports.
    pub host_ports: BTreeSet<HostPort>,
    /// The containers.
    pub containers: BTreeSet<ContainerId>,
    /// Their devices.
    #[serde(skip_serializing_if = "DeviceGrants::is_empty")]
    pub devices: DeviceGrants,
}

/// What a node can give in all.
#[derive(Clone, Copy, Debug)]
pub struct Capacity<'a> {
    /// Of each resource.
    pub resources: &'a ResourceVector,
    /// Devices of each kind.
    pub devices: &'a DeviceCounts,
}

impl<'a> From<&'a ResourceVector> for Capacity<'a> {
    /// A node without devices.
    fn from(resources: &'a ResourceVector) -> Self {
        static NONE: DeviceCounts = DeviceCounts::new();
        Self { resources, devices: &NONE }
    }
}

impl Capacity<'_> {
    /// How many devices of a kind there are.
    pub fn count(&self, kind: &str) -> u32 {
        self.devices.get(kind).copied().unwrap_or(0)
    }
}

/// Why a row was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocationError {
    /// The node cannot take the container.
    #[error("cannot bind container {container}: {reason}")]
    Refused {
        /// The container.
        container: ContainerId,
        /// What stands against it.
        reason: Reason,
    },
    /// The container is in the row already.
    #[error("cannot bind container {container}: it is bound to this node already")]
    AlreadyBound {
        /// The container.
        container: ContainerId,
    },
    /// The container is not in the row.
    #[error("cannot release container {container}: it is not bound to this node")]
    NotBound {
        /// The container.
        container: ContainerId,
    },
    /// The row holds less than the container is said to have taken; it must be derived anew from the containers.
    #[error("cannot release container {container}: the node's row holds less than that; derive the row anew")]
    Inconsistent {
        /// The container.
        container: ContainerId,
    },
}

/// What keeps a request from a node that has `free` left and gave away `taken`; the cheap form of [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Port(HostPort),
    Dimension(Dimension),
}

/// What the row of a node alone says: ports first, then the dimensions in their order.
fn obstacle(free: &ResourceVector, taken: &BTreeSet<HostPort>, request: &Request) -> Option<Obstacle> {
    let port = request.host_ports.iter().find(|port| taken.contains(port));
    port.map(|port| Obstacle::Port(*port)).or_else(|| request.resources.first_excess(free).map(Obstacle::Dimension))
}

impl Allocation {
    /// The row that follows from the containers bound to one node. Sums that overflow stay at the largest number, so
    /// that such a node takes nothing more.
    pub fn of<'a>(containers: impl IntoIterator<Item = &'a Container>) -> Self {
        let mut row = Self::default();
        for container in containers {
            row.adopt(container);
        }
        row
    }

    pub(crate) fn adopt(&mut self, container: &Container) {
        if !container.is_finished() && self.containers.insert(container.id.clone()) {
            let (have, more) = (self.resources.amounts(), container.template.resources.vector().amounts());
            self.resources = ResourceVector::from_amounts(std::array::from_fn(|i| have[i].saturating_add(more[i])));
            self.host_ports.extend(container.host_ports());
            self.devices.give(&container.id, &container.template.resources.devices, &container.devices);
        }
    }

    /// What is left of `capacity`; zero where it is exceeded.
    pub fn free(&self, capacity: &ResourceVector) -> ResourceVector {
        capacity.saturating_sub(&self.resources)
    }

    /// Why a node of that capacity cannot take the request now; `None` if it can.
    pub fn refuses<'a>(&self, capacity: impl Into<Capacity<'a>>, request: &Request) -> Option<Reason> {
        let capacity = capacity.into();
        self.lacks(capacity, request).or_else(|| self.not_free(capacity, request, &self.chosen(capacity, request)))
    }

    /// Why a node of that capacity cannot take the request, whatever devices it has.
    fn lacks(&self, Capacity { resources: capacity, .. }: Capacity<'_>, request: &Request) -> Option<Reason> {
        let free = self.free(capacity);
        obstacle(&free, &self.host_ports, request).map(|obstacle| match obstacle {
            Obstacle::Port((port, protocol)) => Reason::HostPort { port, protocol },
            Obstacle::Dimension(dimension) => Reason::Dimension {
                dimension,
                asked: request.resources.get(dimension),
                allocatable: capacity.get(dimension),
                allocated: self.resources.get(dimension),
                free: free.get(dimension),
            },
        })
    }

    /// The devices that the request would get; none of kinds that do not suffice.
    fn chosen(&self, capacity: Capacity<'_>, request: &Request) -> DeviceIndices {
        let choose = |(kind, asked): (&String, &DeviceMillis)| {
            let indices = devices::choose(&self.devices.used(kind), capacity.count(kind), *asked)?;
            Some((kind.clone(), indices))
        };
        request.devices.iter().filter_map(choose).collect()
    }

    /// The first kind of which the request cannot be given just these devices.
    fn not_free(&self, capacity: Capacity<'_>, request: &Request, indices: &DeviceIndices) -> Option<Reason> {
        request.devices.iter().find_map(|(kind, asked)| {
            let (before, count) = (self.devices.used(kind), capacity.count(kind));
            let mut used = before;
            let given = indices.get(kind).map_or(&[][..], Vec::as_slice);
            let is_there = |index: &u32| *index < count && (*index as usize) < used.len();
            let there = given.iter().all(is_there) && given.len() == asked.count() as usize;
            devices::add(&mut used, given, asked.of_each());
            let within = given.iter().all(|index| used.get(*index as usize).is_some_and(|used| *used <= DEVICE_MILLIS));
            (!there || !within).then(|| Reason::devices(kind, *asked, count, &before))
        })
    }

    /// Gives the request what it asks, or changes nothing.
    pub fn bind<'a>(&mut self, capacity: impl Into<Capacity<'a>>, request: &Request) -> Result<(), AllocationError> {
        let capacity = capacity.into();
        self.bind_to(capacity, request, &self.chosen(capacity, request))
    }

    /// Gives the request what it asks, and of devices just these, or changes nothing.
    pub fn bind_to<'a>(
        &mut self,
        capacity: impl Into<Capacity<'a>>,
        request: &Request,
        indices: &DeviceIndices,
    ) -> Result<(), AllocationError> {
        let capacity = capacity.into();
        let container = || request.container.clone();
        if self.containers.contains(&request.container) {
            return Err(AllocationError::AlreadyBound { container: container() });
        }
        let reason = self.lacks(capacity, request).or_else(|| self.not_free(capacity, request, indices));
        if let Some(reason) = reason {
            return Err(AllocationError::Refused { container: container(), reason });
        }
        // An over-allocated dimension of which nothing is asked may stand near the largest number, never overflow.
        let sum = self.resources.checked_add(&request.resources);
        self.resources = sum.ok_or_else(|| AllocationError::Inconsistent { container: container() })?;
        self.host_ports.extend(request.host_ports.iter().copied());
        self.devices.give(&request.container, &request.devices, indices);
        self.containers.insert(container());
        Ok(())
    }

    /// Takes back what the request was given, or changes nothing.
    pub fn release(&mut self, request: &Request) -> Result<(), AllocationError> {
        let container = || request.container.clone();
        if !self.containers.contains(&request.container) {
            return Err(AllocationError::NotBound { container: container() });
        }
        let rest = self.resources.checked_sub(&request.resources);
        let held = request.host_ports.is_subset(&self.host_ports);
        let rest = rest.filter(|_| held && self.devices.are(&request.container, &request.devices));
        self.resources = rest.ok_or_else(|| AllocationError::Inconsistent { container: container() })?;
        self.host_ports.retain(|port| !request.host_ports.contains(port));
        self.devices.take_back(&request.container);
        self.containers.remove(&request.container);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{memory, request};
    use heptad_model::Protocol;

    #[test]
    fn what_was_bound_can_be_released_and_leaves_nothing() {
        let mut row = Allocation::default();
        let mut asked = request("a", "web", 60);
        asked.host_ports.insert((80, Protocol::Tcp));
        row.bind(&memory(100), &asked).expect("it fits");
        assert_eq!(row.resources, memory(60));
        assert_eq!(
            row.bind(&memory(100), &asked),
            Err(AllocationError::AlreadyBound { container: asked.container.clone() })
        );
        row.release(&asked).expect("it is bound");
        assert_eq!(row, Allocation::default());
        assert_eq!(row.release(&asked), Err(AllocationError::NotBound { container: asked.container }));
    }

    #[test]
    fn a_capacity_or_a_port_is_never_given_twice_and_refusals_change_nothing() {
        let mut row = Allocation::default();
        let mut first = request("a", "web", 60);
        first.host_ports.insert((80, Protocol::Tcp));
        row.bind(&memory(100), &first).expect("it fits");
        let before = row.clone();
        let refused = row.bind(&memory(100), &request("b", "web", 41));
        let text = refused.expect_err("1 MiB is missing").to_string();
        assert_eq!(text, "cannot bind container b: memory: asked 41Mi, allocatable 100Mi, allocated 60Mi, free 40Mi");
        let mut second = request("b", "web", 1);
        second.host_ports.insert((80, Protocol::Tcp));
        let text = row.bind(&memory(100), &second).expect_err("the port is taken").to_string();
        assert_eq!(text, "cannot bind container b: host port 80/TCP is taken");
        second.host_ports = [(80, Protocol::Udp)].into();
        assert_eq!(row, before);
        assert_eq!(row.bind(&memory(100), &second), Ok(()));
    }

    #[test]
    fn a_row_that_holds_less_than_is_released_is_said_to_be_inconsistent() {
        let mut row = Allocation { containers: ["a".into()].into(), ..Allocation::default() };
        let before = row.clone();
        assert!(matches!(row.release(&request("a", "web", 1)), Err(AllocationError::Inconsistent { .. })));
        assert_eq!(row, before);
    }

    #[test]
    fn a_device_is_given_whole_or_in_shares_and_comes_back() {
        let (resources, devices) = (memory(100), DeviceCounts::from([("gpu".to_owned(), 2)]));
        let capacity = Capacity { resources: &resources, devices: &devices };
        let asks = |container: &str, millis: u32| {
            let devices = [("gpu".to_owned(), DeviceMillis(millis))].into();
            Request { devices, ..request(container, "web", 10) }
        };
        let mut row = Allocation::default();
        for (container, millis, index) in [("a", 600, 0), ("b", 500, 1), ("c", 400, 0), ("d", 300, 1)] {
            row.bind(capacity, &asks(container, millis)).expect("it fits");
            assert_eq!(row.devices.of(&container.into())["gpu"], [index], "{container}");
        }
        let before = row.clone();
        let text = row.bind(capacity, &asks("e", 201)).expect_err("no device has so much").to_string();
        assert_eq!(text, "cannot bind container e: gpu: asked 201m of one, at most 200m of one is free (of 2)");
        let text = row.bind(capacity, &asks("e", 1_000)).expect_err("none is whole").to_string();
        assert_eq!(text, "cannot bind container e: gpu: asked 1 whole, free 0 of 2");
        let text = row.bind(&resources, &asks("e", 1)).expect_err("a node without").to_string();
        assert_eq!(text, "cannot bind container e: gpu: asked 1m of one, and the node has none");
        assert_eq!(row, before, "refusals change nothing");
        assert!(matches!(row.release(&asks("a", 500)), Err(AllocationError::Inconsistent { .. })));
        for (container, millis) in [("a", 600), ("c", 400)] {
            row.release(&asks(container, millis)).expect("it is bound");
        }
        row.bind(capacity, &asks("e", 1_000)).expect("the first is free again");
        let read: Allocation = serde_json::from_str(&serde_json::to_string(&row).expect("plain data")).expect("a row");
        assert_eq!(read, row);
        for (container, millis) in [("e", 1_000), ("b", 500), ("d", 300)] {
            row.release(&asks(container, millis)).expect("it is bound");
        }
        assert_eq!(row, Allocation::default());
    }

    #[test]
    fn just_these_devices_are_given_or_nothing() {
        let (resources, devices) = (memory(100), DeviceCounts::from([("gpu".to_owned(), 4)]));
        let capacity = Capacity { resources: &resources, devices: &devices };
        let two = [("gpu".to_owned(), DeviceMillis::whole(2))];
        let asks = |container: &str| Request { devices: two.clone().into(), ..request(container, "web", 10) };
        let these = |indices: &[u32]| DeviceIndices::from([("gpu".to_owned(), indices.to_vec())]);
        let mut row = Allocation::default();
        for wrong in [&[0][..], &[0, 0], &[3, 4], &[0, 1, 2], &[]] {
            assert!(row.bind_to(capacity, &asks("a"), &these(wrong)).is_err(), "{wrong:?}");
        }
        row.bind_to(capacity, &asks("a"), &these(&[1, 2])).expect("they are free");
        assert!(row.bind_to(capacity, &asks("b"), &these(&[2, 3])).is_err(), "one is given");
        row.bind(capacity, &asks("b")).expect("two are left");
        assert_eq!(row.devices.of(&"b".into())["gpu"], [0, 3]);
    }

    #[test]
    fn sums_near_the_largest_number_take_nothing_more() {
        let most = ResourceVector::from_amounts([u64::MAX; 4]);
        let mut row = Allocation { resources: most, ..Allocation::default() };
        assert!(row.bind(&most, &request("a", "web", 1)).is_err());
        assert_eq!(row.bind(&memory(1), &request("b", "web", 0)), Ok(()));
    }
}
