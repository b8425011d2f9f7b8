//! The two sides of a service during a rollout: the containers of one revision get a share of the requests, whatever
//! their number. Knows no policy and no rule.

use crate::facts::Draw;
use heptad_model::{Container, Endpoint, TrafficSplit, snapshot::ready_endpoints};
use std::collections::BTreeMap;

/// The stream of the draw that chooses the side.
const STREAM_SIDE: u64 = 4;

type Ports = BTreeMap<u16, Vec<Endpoint>>;

/// The ready endpoints of a service, separated by revision.
#[derive(Debug)]
pub(crate) struct Sides {
    percent: u64,
    /// Those of the revision that gets the share.
    chosen: Ports,
    rest: Ports,
}

fn ports<'a>(containers: impl Iterator<Item = &'a Container>) -> Ports {
    let mut ports = Ports::new();
    for endpoint in ready_endpoints(containers).into_values().flatten() {
        ports.entry(endpoint.port).or_default().push(endpoint);
    }
    ports
}

impl Sides {
    pub(crate) fn new<'a>(split: TrafficSplit, containers: impl Iterator<Item = &'a Container> + Clone) -> Self {
        let is_chosen = |c: &&Container| c.revision == split.revision;
        Self {
            percent: split.percent.into(),
            chosen: ports(containers.clone().filter(is_chosen)),
            rest: ports(containers.filter(|c| !is_chosen(c))),
        }
    }

    /// The endpoints of the side on which the draw falls; of the other side if that one has none.
    pub(crate) fn drawn(&self, port: u16, draw: Draw) -> Option<&[Endpoint]> {
        let sides = match draw.below(STREAM_SIDE, 100) < self.percent {
            true => [&self.chosen, &self.rest],
            false => [&self.rest, &self.chosen],
        };
        sides.into_iter().find_map(|ports| ports.get(&port)).map(Vec::as_slice)
    }
}
