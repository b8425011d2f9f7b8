//! The policy that weighs expected fragmentation: how much of a node's free devices a request drawn from the mix could
//! not use, and by how much that grows with a request. What was worked out is kept until the node changes.

use super::{Choice, ClassId, ClassSpec, DeviceNeed, Engine, Grant, NEEDS_MAX, NodeIndex, class::Class, devices::Pool};
use std::collections::{BTreeMap, VecDeque};

/// Growths that are kept at most, of all classes together.
const GROWTHS_MAX: usize = 1 << 23;
/// Nodes of which only the least growth is looked at together.
const CHUNK: usize = 64;
/// The growth where nothing fits.
const NEVER: i64 = i64::MAX;

/// One class of the mix.
#[derive(Clone, Debug)]
struct Wish {
    spec: ClassSpec,
    weight: i64,
    /// By need: where its limit stands in [`Fragmentation::limits`].
    limits: [usize; NEEDS_MAX],
}

/// The mix, and what follows from it for each node.
#[derive(Clone, Debug, Default)]
pub(super) struct Fragmentation {
    mix: Vec<Wish>,
    /// Kind and amount: a device with less free is of no use for some wish. Each once.
    limits: Vec<(usize, u16)>,
    /// By node, if known: what is unusable now.
    unusable: Vec<Option<i64>>,
    growths: BTreeMap<ClassId, Growths>,
    /// The nodes that changed last; the last one was the `changes`th.
    changed: VecDeque<u32>,
    changes: u64,
}

/// By how much what is unusable would grow with a request of one class.
#[derive(Clone, Debug, Default)]
struct Growths {
    by_node: Vec<i64>,
    /// By chunk: the least growth, the room of its node, the node.
    least: Vec<(i64, u64, u32)>,
    /// The changes that are reckoned in.
    seen: u64,
}

impl Fragmentation {
    /// Weights are how often a class is asked.
    pub(super) fn new<'a>(mix: impl Iterator<Item = (&'a ClassSpec, u32)>) -> Self {
        let mut new = Self::default();
        for (spec, weight) in mix.filter(|(spec, weight)| *weight > 0 && !spec.devices.is_empty()) {
            let mut wish = Wish { spec: spec.clone(), weight: weight.into(), limits: [0; NEEDS_MAX] };
            for (slot, need) in wish.limits.iter_mut().zip(&spec.devices) {
                let limit = (usize::from(need.kind.0), need.of_each());
                let known = new.limits.iter().position(|other| *other == limit);
                *slot = known.unwrap_or_else(|| {
                    new.limits.push(limit);
                    new.limits.len() - 1
                });
            }
            new.mix.push(wish);
        }
        new
    }

    /// Whether nobody asks for devices.
    pub(super) fn is_empty(&self) -> bool {
        self.mix.is_empty()
    }

    /// Forgets all that was worked out for so many nodes.
    pub(super) fn forget(&mut self, nodes: usize) {
        self.unusable = vec![None; nodes];
        self.growths.clear();
        self.changed.clear();
    }

    pub(super) fn changed(&mut self, node: NodeIndex) {
        if self.unusable.is_empty() {
            return;
        }
        self.unusable[node] = None;
        self.changes += 1;
        self.changed.push_back(node as u32);
        // Who is further behind works out everything anew.
        if self.changed.len() > self.unusable.len() / 2 + CHUNK {
            self.changed.pop_front();
        }
    }

    /// What wishes could not use of those pools if a node had that much else, in millis times weights. A wish that the
    /// node cannot take uses nothing of it; one that it can take not the devices that are too small, and not those for
    /// which the rest of what it asks would run out, however often it came.
    fn unusable(&self, node: NodeIndex, amounts: &[u64; 4], pools: &[Pool]) -> i64 {
        let totals: Vec<i64> = pools.iter().map(|pool| pool.total() as i64).collect();
        if totals.iter().all(|total| *total == 0) {
            return 0;
        }
        let offers: Vec<u32> = pools.iter().map(Pool::offers).collect();
        let too_small = |(kind, limit): &(usize, u16)| pools.get(*kind).map_or(0, |pool| i64::from(pool.below(*limit)));
        let too_small: Vec<i64> = self.limits.iter().map(too_small).collect();
        let of_wish = |wish: &Wish| {
            let takes = (0..4).all(|d| wish.spec.amounts[d] <= amounts[d])
                && wish.spec.devices.iter().all(|n| offers.get(usize::from(n.kind.0)).is_some_and(|o| n.millis <= *o))
                && wish.spec.eligible.as_ref().is_none_or(|nodes| nodes.contains(node));
            let lost = wish.spec.devices.iter().zip(wish.limits).map(|(need, limit)| {
                let total = totals.get(usize::from(need.kind.0)).copied().unwrap_or(0);
                if takes {
                    total - supplied(total - too_small[limit], need, &wish.spec.amounts, amounts)
                } else {
                    total
                }
            });
            wish.weight * lost.sum::<i64>()
        };
        self.mix.iter().map(of_wish).sum()
    }
}

/// For how much of `usable` devices of a need what is free suffices if `asked` goes with it.
fn supplied(usable: i64, need: &DeviceNeed, asked: &[u64; 4], free: &[u64; 4]) -> i64 {
    let mut supplied = u128::from(usable.unsigned_abs());
    for d in (0..4).filter(|d| asked[*d] > 0) {
        let has = u128::from(need.millis) * u128::from(free[d]);
        // The division is slow and seldom needed.
        if has < supplied * u128::from(asked[d]) {
            supplied = has / u128::from(asked[d]);
        }
    }
    i64::try_from(supplied).unwrap_or(i64::MAX)
}

impl Engine {
    fn pools_of(&self, node: NodeIndex) -> Vec<Pool> {
        self.pools.iter().map(|pools| pools[node]).collect()
    }

    fn unusable_now(&self, node: NodeIndex) -> i64 {
        self.fragmentation.unusable(node, &self.amounts(node), &self.pools_of(node))
    }

    /// What a request drawn from the mix could not use of a node's devices in expectation: millis times the sum of weights.
    pub fn fragmentation(&self, node: NodeIndex) -> i64 {
        self.fragmentation.unusable.get(node).copied().flatten().unwrap_or_else(|| self.unusable_now(node))
    }

    /// The least growth of it with a request of the class, and the devices with which it is so: of equal ones those of
    /// the one rule.
    fn growth(&self, node: NodeIndex, class: &Class) -> Option<(i64, Grant)> {
        if !class.is_eligible(node) || !self.has(node, class) {
            return None;
        }
        let free = self.amounts(node);
        let amounts = std::array::from_fn(|d| free[d] - class.spec.amounts[d]);
        let before = self.fragmentation(node);
        let with = |grant: Grant| {
            let mut pools = self.pools_of(node);
            for (need, mask) in class.spec.devices.iter().zip(grant.0) {
                pools[usize::from(need.kind.0)].take(*need, mask);
            }
            (self.fragmentation.unusable(node, &amounts, &pools) - before, grant)
        };
        if let [need] = class.spec.devices[..] {
            let pool = &self.pools[usize::from(need.kind.0)][node];
            let least = pool.picks(need).map(|mask| with(Grant([mask, 0, 0, 0])));
            return least.min_by_key(|(growth, grant)| (*growth, pool.rest(grant.0[0]), *grant));
        }
        let mut grant = Grant::default();
        for (slot, need) in grant.0.iter_mut().zip(&class.spec.devices) {
            *slot = self.pools[usize::from(need.kind.0)][node].pick(*need)?;
        }
        Some(with(grant))
    }

    /// The node of the least growth, then of the least room, that takes the class and is accepted; looks at all.
    pub(super) fn least_growth(&self, class: &Class, accept: &impl Fn(NodeIndex) -> bool) -> Option<Choice> {
        let growths = (0..self.len()).filter(|node| accept(*node)).filter_map(|node| {
            let (growth, grant) = self.growth(node, class)?;
            Some((growth, self.rooms[node], node, grant))
        });
        growths.min().map(|(_, _, node, grant)| Choice { node, grant })
    }

    /// The same of all nodes, by what was worked out before and only for nodes that changed since anew.
    pub(super) fn choose_whole(&mut self, class: ClassId) -> Option<Choice> {
        if self.fragmentation.unusable.is_empty() {
            self.fragmentation.forget(self.len());
        }
        let mut growths = self.fragmentation.growths.remove(&class).unwrap_or_default();
        let behind = (self.fragmentation.changes - growths.seen) as usize;
        if growths.by_node.is_empty() || behind > self.fragmentation.changed.len() {
            self.make_room_for_growths();
            self.work_out_all(&mut growths, class);
        } else {
            let start = self.fragmentation.changed.len() - behind;
            for i in start..self.fragmentation.changed.len() {
                let node = self.fragmentation.changed[i] as usize;
                growths.by_node[node] = self.growth_kept(node, class);
                growths.least[node / CHUNK] = self.least_of(&growths.by_node, node / CHUNK);
            }
        }
        growths.seen = self.fragmentation.changes;
        let least = growths.least.iter().min().filter(|(growth, _, _)| *growth != NEVER).copied();
        self.fragmentation.growths.insert(class, growths);
        let node = least?.2 as NodeIndex;
        let (_, grant) = self.growth(node, &self.classes[class.index()])?;
        Some(Choice { node, grant })
    }

    fn growth_kept(&mut self, node: NodeIndex, class: ClassId) -> i64 {
        if !self.fits(node, class) {
            return NEVER;
        }
        let now = self.fragmentation(node);
        self.fragmentation.unusable[node] = Some(now);
        self.growth(node, &self.classes[class.index()]).map_or(NEVER, |(growth, _)| growth)
    }

    fn work_out_all(&mut self, growths: &mut Growths, class: ClassId) {
        growths.by_node = (0..self.len()).map(|node| self.growth_kept(node, class)).collect();
        growths.least = (0..self.len().div_ceil(CHUNK)).map(|chunk| self.least_of(&growths.by_node, chunk)).collect();
    }

    fn least_of(&self, by_node: &[i64], chunk: usize) -> (i64, u64, u32) {
        let nodes = chunk * CHUNK..((chunk + 1) * CHUNK).min(by_node.len());
        let all = nodes.map(|node| (by_node[node], self.rooms[node], node as u32));
        all.min().unwrap_or((NEVER, 0, 0))
    }

    /// Forgets the growths of the classes that were asked longest ago, so that one more fits.
    fn make_room_for_growths(&mut self) {
        let most = (GROWTHS_MAX / self.len().max(1)).max(1);
        let growths = &mut self.fragmentation.growths;
        while growths.len() >= most {
            let Some(oldest) = growths.iter().min_by_key(|(class, kept)| (kept.seen, **class)).map(|(c, _)| *c) else {
                return;
            };
            growths.remove(&oldest);
        }
    }
}
