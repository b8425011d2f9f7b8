//! Random operations with crashes over the real planner and the real rule of binding: deployers with old snapshots, right and
//! wrong planners, replaced leaders, transactions that are delayed, repeated and lost. G4 is judged after every commit. The steps
//! are those of `spec/G4_capacity.v`. `HEPTAD_OPERATIONS=100000000` makes it longer, `HEPTAD_OPERATIONS_SEED` another.

use crate::{
    common::{Draws, node, request, service, vector},
    store::{Change, Outcome, Slot, Store, Transaction},
};
use heptad_capacity::{Allocation, NodesView, Request};
use heptad_check::check_with;
use heptad_model::{DeviceMillis, GPU, NodeName, NodeStatus, Placement, Protocol};
use heptad_sched::plan;
use std::{collections::BTreeMap, rc::Rc};

/// All tests of this file together.
const OPERATIONS: u64 = 1_000_000;
const SEED: u64 = 4;
const DEPLOYERS: usize = 4;
const NODES: usize = 5;
const SLOTS: usize = 24;
const IN_FLIGHT_MAX: usize = 32;
/// Commits look at the nodes that they touch; all nodes are looked at every so many operations.
const OPERATIONS_PER_LOOK: u64 = 256;

/// What a deployer remembers. A crash forgets it.
#[derive(Clone, Debug, Default)]
struct Deployer {
    led: Option<u64>,
    snapshot: Option<Rc<Store>>,
}

/// How often each thing happened, so that a test that does nothing cannot pass.
#[derive(Clone, Debug, Default)]
struct Counts {
    applied: u64,
    stale_leader: u64,
    stale_row: u64,
    repeated: u64,
    refused_bindings: u64,
    right_plans: u64,
    crashes: u64,
    elections: u64,
}

struct System {
    store: Rc<Store>,
    deployers: Vec<Deployer>,
    network: Vec<Transaction>,
    draws: Draws,
    names: u64,
    compares: bool,
    counts: Counts,
}

impl System {
    fn new(seed: u64, compares: bool) -> Self {
        let mut draws = Draws(seed);
        let nodes =
            (0..NODES).map(|i| node(&format!("n{i}"), std::array::from_fn(|_| 16 + draws.below(32) as u64))).collect();
        let (deployers, network) = (vec![Deployer::default(); DEPLOYERS], Vec::new());
        let (store, counts) = (Rc::new(Store::new(nodes, SLOTS)), Counts::default());
        Self { store, deployers, network, draws, names: 0, compares, counts }
    }

    /// One operation; what is wrong after it.
    fn step(&mut self) -> Option<String> {
        let deployer = self.draws.below(DEPLOYERS);
        match self.draws.below(1_000) {
            0..=3 => self.elect(deployer),
            4..=63 => self.deployers[deployer].led = Some(self.store.generation),
            64..=263 => self.deployers[deployer].snapshot = Some(Rc::clone(&self.store)),
            264..=543 => self.send(deployer),
            544..=863 => return self.deliver(),
            864..=893 => self.lose(),
            894..=903 => {
                self.deployers[deployer] = Deployer::default();
                self.counts.crashes += 1;
            }
            904..=913 => self.register(),
            _ => self.come_and_go(),
        }
        None
    }

    fn elect(&mut self, deployer: usize) {
        self.deployers[deployer].led = Some(Rc::make_mut(&mut self.store).elect());
        self.counts.elections += 1;
    }

    fn send(&mut self, deployer: usize) {
        let Deployer { led: Some(led), snapshot: Some(read) } = self.deployers[deployer].clone() else { return };
        let wanted = match self.draws.below(16) {
            0 => self.right_plan(&read),
            1..=5 => self.freed(&read),
            6..=9 => [self.freed(&read), self.careless(4)].concat(),
            _ => self.careless(4),
        };
        let (transaction, refused) = read.stage(led, &wanted);
        self.counts.refused_bindings += refused as u64;
        if !transaction.is_empty() {
            if self.network.len() == IN_FLIGHT_MAX {
                self.lose();
            }
            self.network.push(transaction);
        }
    }

    /// The real planner, judged by the real check.
    fn right_plan(&mut self, read: &Store) -> Vec<Change> {
        let rows: BTreeMap<NodeName, Allocation> = read
            .nodes
            .iter()
            .zip(&read.rows)
            .map(|(node, row)| (node.value.name.clone(), (*row.value).clone()))
            .collect();
        let view = NodesView::with_rows(read.nodes.iter().map(|node| &*node.value), &rows, []);
        let waiting: Vec<(usize, &Request)> = read
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.value.node.is_none())
            .filter_map(|(i, slot)| Some((i, slot.value.request.as_deref()?)))
            .collect();
        let requests: Vec<Request> = waiting.iter().map(|(_, request)| (*request).clone()).collect();
        let (plan, _) = plan(&view, &requests);
        assert_eq!(check_with(&view, &plan, &requests, []), []);
        self.counts.right_plans += 1;
        let change = |(slot, request): &(usize, &Request)| {
            Some(Change::Bind(*slot, view.index(plan.bindings().get(&request.container)?)?))
        };
        waiting.iter().filter_map(change).collect()
    }

    /// A planner that looks at nothing.
    fn careless(&mut self, most: usize) -> Vec<Change> {
        let count = 1 + self.draws.below(most);
        (0..count).map(|_| Change::Bind(self.draws.below(SLOTS), self.draws.below(NODES))).collect()
    }

    fn freed(&mut self, read: &Store) -> Vec<Change> {
        let bound: Vec<usize> = (0..SLOTS).filter(|slot| read.slots[*slot].value.node.is_some()).collect();
        let count = 1 + self.draws.below(3);
        (0..count).filter_map(|_| self.draws.one_of(&bound).map(|slot| Change::Free(*slot))).collect()
    }

    /// One of the transactions under way arrives. Some stay, so that they can arrive again.
    fn deliver(&mut self) -> Option<String> {
        if self.network.is_empty() {
            return None;
        }
        let at = self.draws.below(self.network.len());
        let stays = self.draws.below(4) == 0;
        let transaction = if stays { self.network[at].clone() } else { self.network.swap_remove(at) };
        let outcome = Rc::make_mut(&mut self.store).deliver(&transaction, self.compares);
        match outcome {
            Outcome::Applied => self.counts.applied += 1,
            Outcome::StaleLeader => self.counts.stale_leader += 1,
            Outcome::StaleRow => self.counts.stale_row += 1,
        }
        if outcome != Outcome::Applied {
            return None;
        }
        if self.compares && stays {
            // What arrives twice is applied once.
            let again = Rc::make_mut(&mut self.store).deliver(&transaction, true);
            assert_eq!(again, Outcome::StaleRow);
            self.counts.repeated += 1;
        }
        transaction.nodes().find_map(|node| self.store.wrong(node))
    }

    fn lose(&mut self) {
        if !self.network.is_empty() {
            let at = self.draws.below(self.network.len());
            self.network.swap_remove(at);
        }
    }

    /// A node says what it can give: never less than it gave.
    fn register(&mut self) {
        let at = self.draws.below(NODES);
        let given = self.store.rows[at].value.resources.amounts();
        let capacity = std::array::from_fn(|k| given[k].max(16 + self.draws.below(32) as u64));
        let is_ready = self.draws.below(8) > 0;
        Rc::make_mut(&mut self.store).register(at, |node| {
            node.capacity = vector(capacity);
            node.status = if is_ready { NodeStatus::Ready } else { NodeStatus::NotReady };
        });
    }

    /// A container is made, or one without a node goes; names are never used again.
    fn come_and_go(&mut self) {
        let at = self.draws.below(SLOTS);
        let slot = &self.store.slots[at].value;
        let new = match (&slot.request, slot.node) {
            (Some(_), Some(_)) => return,
            (Some(_), None) if self.draws.below(8) > 0 => return,
            (Some(_), None) => Slot::default(),
            (None, _) => Slot { request: Some(Rc::new(self.another())), node: None },
        };
        Rc::make_mut(&mut self.store).write_slot(at, new);
    }

    fn another(&mut self) -> Request {
        self.names += 1;
        let asks = std::array::from_fn(|_| self.draws.below(14) as u64);
        let service = service(&format!("s{}", self.names % 5), asks);
        let mut request = request(&format!("c{}", self.names), &service);
        if self.draws.below(4) == 0 {
            request.host_ports.insert((80 + self.draws.below(3) as u16, Protocol::Tcp));
        }
        // Nothing, a share of one GPU, or whole ones.
        let gpus = [0, 0, 0, 0, 300, 500, 1_000, 2_000][self.draws.below(8)];
        if gpus > 0 {
            request.devices.insert(GPU.to_owned(), DeviceMillis(gpus));
        }
        request.placement = if self.draws.below(2) == 0 { Placement::Pack } else { Placement::Spread };
        request
    }
}

/// So many operations; the first that is wrong, and how many there were.
fn run(system: &mut System, operations: u64) -> Result<(), String> {
    for number in 0..operations {
        let wrong = system.step().or_else(|| match number % OPERATIONS_PER_LOOK {
            0 => system.store.wrong_anywhere(),
            _ => None,
        });
        if let Some(wrong) = wrong {
            return Err(format!("operation {number}: {wrong}"));
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is its caller's choice")]
fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number, not {text}")))
}

/// One of four parts, which the test program runs side by side.
#[expect(clippy::print_stdout, reason = "the seed is told")]
fn part(number: u64) {
    let operations = number_of("HEPTAD_OPERATIONS").unwrap_or(OPERATIONS) / 4;
    let seed = number_of("HEPTAD_OPERATIONS_SEED").unwrap_or(SEED).wrapping_mul(4).wrapping_add(number);
    println!("{operations} operations of seed {seed}");
    let mut system = System::new(seed, true);
    if let Err(wrong) = run(&mut system, operations) {
        panic!("seed {seed}: {wrong}");
    }
    let counts = &system.counts;
    println!("{counts:?}");
    let enough = operations / 1_000;
    for (count, what) in [
        (counts.applied, "applied"),
        (counts.stale_leader, "of stale leaders"),
        (counts.stale_row, "of stale rows"),
        (counts.repeated, "repeated"),
        (counts.refused_bindings, "refused by the rule"),
        (counts.right_plans, "of the planner"),
        (counts.crashes, "crashes"),
        (counts.elections, "elections"),
    ] {
        assert!(count > enough, "only {count} {what}: {counts:?}");
    }
}

#[test]
fn random_operations_with_crashes_0() {
    part(0);
}

#[test]
fn random_operations_with_crashes_1() {
    part(1);
}

#[test]
fn random_operations_with_crashes_2() {
    part(2);
}

#[test]
fn random_operations_with_crashes_3() {
    part(3);
}

/// A store that does not compare what was read is soon found out: the judge of these tests can say no.
#[test]
fn without_comparison_a_capacity_is_exceeded() {
    for seed in 0..8 {
        let mut system = System::new(seed, false);
        let wrong = run(&mut system, 20_000).expect_err("old snapshots overwrite rows");
        assert!(wrong.contains("gave"), "{wrong}");
    }
}
