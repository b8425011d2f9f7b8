//! The engine against a model that looks at every node with wide arithmetic: same choices, same state, never too much.

use super::*;
use proptest::prelude::*;
use std::{collections::BTreeSet, sync::Arc};

/// What the model knows of a node.
#[derive(Clone, Debug)]
struct Node {
    free: [u128; 4],
    devices: Vec<Vec<u32>>,
}

/// The same engine, told as simply as possible.
#[derive(Clone, Debug)]
struct Model {
    nodes: Vec<Node>,
    mix: Vec<(ClassSpec, u32)>,
}

impl Model {
    fn devices_of(&self, node: usize, need: DeviceNeed) -> &[u32] {
        self.nodes[node].devices.get(usize::from(need.kind.0)).map_or(&[], |devices| devices)
    }

    /// The devices that could be given: all sets of the needed size would be too many, so whole ones by the rule.
    fn grants(&self, node: usize, need: DeviceNeed) -> Vec<Vec<usize>> {
        let devices = self.devices_of(node, need);
        if need.millis >= 1000 {
            let whole: Vec<usize> = (0..devices.len()).filter(|i| devices[*i] == 1000).collect();
            let count = need.millis as usize / 1000;
            return if whole.len() >= count { vec![whole[..count].to_vec()] } else { vec![] };
        }
        let mut all: Vec<usize> = (0..devices.len()).filter(|i| devices[*i] >= need.millis).collect();
        all.sort_by_key(|i| (devices[*i], *i));
        all.into_iter().map(|i| vec![i]).collect()
    }

    fn takes(&self, node: usize, spec: &ClassSpec) -> bool {
        let amounts = spec.amounts.iter().zip(&self.nodes[node].free).all(|(asked, free)| u128::from(*asked) <= *free);
        amounts
            && spec.eligible.as_ref().is_none_or(|nodes| nodes.contains(node))
            && spec.devices.iter().all(|need| !self.grants(node, *need).is_empty())
    }

    fn with(&self, node: usize, spec: &ClassSpec, grants: &[Vec<usize>]) -> Self {
        let mut after = self.clone();
        let at = &mut after.nodes[node];
        (0..4).for_each(|d| at.free[d] -= u128::from(spec.amounts[d]));
        for (need, devices) in spec.devices.iter().zip(grants) {
            devices.iter().for_each(|i| at.devices[usize::from(need.kind.0)][*i] -= need.millis.min(1000));
        }
        after
    }

    fn fragmentation(&self, node: usize) -> i64 {
        let of = |(spec, weight): &(ClassSpec, u32)| {
            let lost = |need: &DeviceNeed| -> i64 {
                let takes = self.takes(node, spec);
                let large = |free: &&u32| takes && **free >= need.millis.min(1000);
                let sum = |free: &mut dyn Iterator<Item = &u32>| free.map(|free| i64::from(*free)).sum::<i64>();
                let devices = self.devices_of(node, *need);
                let asked = spec.amounts.iter().zip(&self.nodes[node].free).filter(|(asked, _)| **asked > 0);
                let supplied = asked.map(|(asked, free)| u128::from(need.millis) * *free / u128::from(*asked)).min();
                let supplied = supplied.map_or(i64::MAX, |millis| i64::try_from(millis).unwrap_or(i64::MAX));
                sum(&mut devices.iter()) - sum(&mut devices.iter().filter(large)).min(supplied)
            };
            i64::from(*weight) * spec.devices.iter().map(lost).sum::<i64>()
        };
        self.mix.iter().map(of).sum()
    }

    /// The first choice of devices by the rule, and all of them for a lone share under the policy that may choose.
    fn choices(&self, node: usize, spec: &ClassSpec, policy: Policy) -> Vec<Vec<Vec<usize>>> {
        let by_rule = || spec.devices.iter().map(|need| self.grants(node, *need)[0].clone()).collect();
        match (&spec.devices[..], policy) {
            ([need], Policy::Fragmentation) => self.grants(node, *need).into_iter().map(|g| vec![g]).collect(),
            _ => vec![by_rule()],
        }
    }

    fn choose(&self, engine: &Engine, spec: &ClassSpec, policy: Policy) -> Option<Choice> {
        let nodes = (0..self.nodes.len()).filter(|node| self.takes(*node, spec));
        let ranked = nodes.flat_map(|node| {
            let choices = self.choices(node, spec, policy).into_iter().enumerate();
            choices.map(move |(i, grants)| {
                let room = i128::from(engine.room(node));
                let rank = match policy {
                    Policy::Pack => (0, room),
                    Policy::Spread => (0, -room),
                    Policy::Fragmentation => {
                        (self.with(node, spec, &grants).fragmentation(node) - self.fragmentation(node), room)
                    }
                };
                ((rank, node, i), grants)
            })
        });
        let ((_, node, _), grants) = ranked.min()?;
        let mut grant = Grant::default();
        for (slot, devices) in grant.0.iter_mut().zip(grants) {
            *slot = devices.iter().map(|i| 1u16 << i).sum();
        }
        Some(Choice { node, grant })
    }
}

fn amounts(most: u64, shift: u32) -> impl Strategy<Value = [u64; 4]> {
    prop::array::uniform4(prop_oneof![Just(0), 0..=most]).prop_map(move |a| a.map(|amount| amount << shift))
}

fn need() -> impl Strategy<Value = DeviceNeed> {
    let millis = prop_oneof![(1u32..=9).prop_map(|n| n * 100), (1u32..5).prop_map(|n| n * 1000), Just(1500)];
    (0u16..3, millis).prop_map(|(kind, millis)| DeviceNeed { kind: DeviceKind(kind), millis })
}

/// Some nodes are alike, some amounts are large, so that all ways of comparing are used.
fn nodes() -> impl Strategy<Value = Vec<NodeCapacity>> {
    let node = |shift: u32| {
        (amounts(60, shift), prop::collection::vec(0usize..5, 0..3)).prop_map(|(amounts, counts)| {
            let pools = counts.into_iter().enumerate().map(|(i, n)| (DeviceKind(i as u16), vec![DEVICE_MILLIS; n]));
            NodeCapacity { amounts, devices: DevicePools(pools.collect()) }
        })
    };
    let alike = (prop_oneof![Just(0u32), Just(30), Just(57)], 1usize..4)
        .prop_flat_map(move |(shift, shapes)| (prop::collection::vec(node(shift), shapes), 1usize..120));
    alike.prop_map(|(shapes, count)| (0..count).map(|i| shapes[(i * i) % shapes.len()].clone()).collect())
}

fn spec(nodes: usize) -> impl Strategy<Value = ClassSpec> {
    let eligible = prop::option::weighted(
        0.4,
        prop_oneof![prop::collection::vec(0..nodes + 2, 0..3), prop::collection::vec(0..nodes, 0..nodes)],
    );
    (amounts(30, 0), 0u32..4, prop::collection::vec(need(), 0..3), eligible).prop_map(
        |(asked, odd, devices, eligible)| {
            let shift = [0, 30, 57, 57][odd as usize];
            let amounts = asked.map(|a| (a << shift) + if a > 0 && odd == 3 { 1 } else { 0 });
            let eligible = eligible.map(|nodes| Arc::new(nodes.into_iter().collect::<NodeSet>()));
            ClassSpec { amounts, devices, eligible }
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Place(prop::sample::Index, Policy),
    Batch(prop::sample::Index, Policy, usize),
    Release(prop::sample::Index),
    Set(prop::sample::Index, [u64; 4]),
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Pack), Just(Policy::Spread), Just(Policy::Fragmentation)]
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<prop::sample::Index>;
    prop_oneof![
        4 => (pick(), policy()).prop_map(|(class, policy)| Step::Place(class, policy)),
        1 => (pick(), policy(), 0usize..20).prop_map(|(class, policy, count)| Step::Batch(class, policy, count)),
        2 => pick().prop_map(Step::Release),
        1 => (pick(), amounts(80, 0)).prop_map(|(node, free)| Step::Set(node, free)),
    ]
}

prop_compose! {
    fn world()(nodes in nodes())(
        specs in prop::collection::vec(spec(nodes.len()), 1..6),
        weights in prop::collection::vec(0u32..5, 6),
        steps in prop::collection::vec(step(), 0..60),
        nodes in Just(nodes),
    ) -> (Vec<NodeCapacity>, Vec<ClassSpec>, Vec<u32>, Vec<Step>) {
        (nodes, specs, weights, steps)
    }
}

fn is_sound(spec: &ClassSpec) -> bool {
    let kinds: BTreeSet<_> = spec.devices.iter().map(|need| need.kind).collect();
    kinds.len() == spec.devices.len() && spec.devices.iter().all(|need| need.millis != 1500)
}

struct Run {
    engine: Engine,
    model: Model,
    classes: Vec<ClassId>,
    bound: Vec<(Choice, ClassId)>,
    choices: Vec<Option<Choice>>,
}

impl Run {
    fn new(nodes: &[NodeCapacity], specs: &[ClassSpec], weights: &[u32]) -> Self {
        let mut engine = Engine::new(nodes.iter().cloned());
        let classes: Vec<ClassId> = specs.iter().map(|spec| engine.add_class(spec.clone())).collect();
        let mix: Vec<(ClassId, u32)> = classes.iter().copied().zip(weights.iter().copied()).collect();
        engine.set_mix(&mix);
        let kinds = |node: &NodeCapacity| {
            (0..3).map(|kind| node.devices.0.get(&DeviceKind(kind)).cloned().unwrap_or_default()).collect()
        };
        let as_node = |node: &NodeCapacity| Node { free: node.amounts.map(u128::from), devices: kinds(node) };
        let model = Model {
            nodes: nodes.iter().map(as_node).collect(),
            mix: mix.iter().map(|(c, weight)| (engine.spec(*c).clone(), *weight)).filter(|(_, w)| *w > 0).collect(),
        };
        Self { engine, model, classes, bound: Vec::new(), choices: Vec::new() }
    }

    fn expected(&mut self, class: ClassId, policy: Policy) -> Option<Choice> {
        let spec = self.engine.spec(class).clone();
        let choice = is_sound(&spec).then(|| self.model.choose(&self.engine, &spec, policy)).flatten()?;
        self.take(choice, class);
        Some(choice)
    }

    fn take(&mut self, choice: Choice, class: ClassId) {
        let spec = self.engine.spec(class);
        let devices = |mask: u16| (0..16).filter(|i| mask >> i & 1 == 1).collect::<Vec<usize>>();
        let grants: Vec<Vec<usize>> = choice.grant.0.iter().take(spec.devices.len()).map(|m| devices(*m)).collect();
        self.model = self.model.with(choice.node, spec, &grants);
        self.bound.push((choice, class));
    }

    fn release(&mut self, which: usize) {
        let (choice, class) = self.bound.swap_remove(which);
        self.engine.release(choice, class);
        let spec = self.engine.spec(class);
        let at = &mut self.model.nodes[choice.node];
        (0..4).for_each(|d| at.free[d] += u128::from(spec.amounts[d]));
        for (need, mask) in spec.devices.iter().zip(choice.grant.0) {
            let given = (0..16).filter(|i| mask >> i & 1 == 1);
            given.for_each(|i| at.devices[usize::from(need.kind.0)][i] += need.millis.min(1000));
        }
    }

    fn go(&mut self, step: Step) {
        match step {
            Step::Place(class, policy) => {
                let class = *class.get(&self.classes);
                assert_eq!(self.engine.fragmentation(0), self.model.fragmentation(0));
                let among = self.engine.choose_among(class, policy, |_| true);
                assert_eq!(self.engine.choose(class, policy), among);
                let placed = self.engine.clone().place(class, policy);
                let expected = self.expected(class, policy);
                assert_eq!(placed, expected);
                if let Some(choice) = expected {
                    assert!(self.engine.fits(choice.node, class));
                    assert!(self.engine.bind_as(choice, class));
                }
                self.choices.push(placed);
            }
            Step::Batch(class, policy, count) => {
                let class = *class.get(&self.classes);
                let mut one_by_one = self.engine.clone();
                let expected: Vec<Choice> = (0..count).map_while(|_| one_by_one.place(class, policy)).collect();
                let batch = self.engine.place_batch(class, count, policy);
                assert_eq!(batch, expected);
                batch.into_iter().for_each(|choice| self.take(choice, class));
            }
            Step::Release(pick) if !self.bound.is_empty() => self.release(pick.index(self.bound.len())),
            Step::Release(_) => {}
            Step::Set(node, amounts) => {
                let node = node.index(self.model.nodes.len());
                self.engine.set_amounts(node, amounts);
                self.model.nodes[node].free = amounts.map(u128::from);
                self.bound.retain(|(choice, _)| choice.node != node);
                // Their devices stay given.
                let free = self.engine.free(node);
                self.engine.set_free(node, &free);
            }
        }
        assert!(self.is_as_the_model());
    }

    fn is_as_the_model(&self) -> bool {
        let has = |node: usize, kind: usize| {
            self.engine.free(node).devices.0.get(&DeviceKind(kind as u16)).cloned().unwrap_or(vec![0; DEVICES_MAX])
        };
        self.model.nodes.iter().enumerate().all(|(node, at)| {
            let same = |(kind, free): (usize, &Vec<u32>)| has(node, kind).starts_with(free);
            self.engine.amounts(node).map(u128::from) == at.free && at.devices.iter().enumerate().all(same)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn it_chooses_what_a_scan_with_wide_numbers_chooses((nodes, specs, weights, steps) in world()) {
        let mut sound = weights.clone();
        specs.iter().zip(&mut sound).filter(|(spec, _)| !is_sound(spec)).for_each(|(_, weight)| *weight = 0);
        let mut run = Run::new(&nodes, &specs, &sound);
        let mut again = Run::new(&nodes, &specs, &sound);
        for step in steps {
            run.go(step.clone());
            again.go(step);
        }
        prop_assert_eq!(&run.choices, &again.choices);
        while !run.bound.is_empty() {
            run.release(0);
        }
        prop_assert!(run.is_as_the_model());
    }
}

#[test]
fn best_fit_and_worst_fit_are_the_textbooks() {
    let node = |memory: u64| NodeCapacity { amounts: [0, memory, 0, 0], ..NodeCapacity::default() };
    let mut engine = Engine::new([90, 30, 60].map(node));
    let class = engine.add_class(ClassSpec::of([0, 20, 0, 0]));
    assert_eq!(engine.choose(class, Policy::Pack).map(|c| c.node), Some(1));
    assert_eq!(engine.choose(class, Policy::Spread).map(|c| c.node), Some(0));
    let nodes: Vec<usize> = engine.place_batch(class, 99, Policy::Pack).iter().map(|c| c.node).collect();
    assert_eq!(nodes, [1, 2, 2, 2, 0, 0, 0, 0]);
    assert_eq!(engine.choose(class, Policy::Pack), None);
    engine.set_amounts(1, [0, 25, 0, 0]);
    assert_eq!(engine.choose(class, Policy::Pack).map(|c| c.node), Some(1));
}

/// The example that the policy is for: half a device goes where a half is, though that node has more room in all.
#[test]
fn fragmentation_keeps_whole_devices_whole() {
    let gpu = DeviceKind(0);
    let node = |cpu: u64, free: &[u32]| NodeCapacity {
        amounts: [cpu, 0, 0, 0],
        devices: DevicePools([(gpu, free.to_vec())].into()),
    };
    let mut engine = Engine::new([node(8, &[1000]), node(32, &[1000, 500])]);
    let half = engine.add_class(ClassSpec::of([1, 0, 0, 0]).with_devices(DeviceNeed { kind: gpu, millis: 500 }));
    let whole = engine.add_class(ClassSpec::of([1, 0, 0, 0]).with_devices(DeviceNeed { kind: gpu, millis: 1000 }));
    engine.set_mix(&[(half, 1), (whole, 1)]);
    assert_eq!(engine.choose(half, Policy::Pack).map(|c| c.node), Some(0));
    assert_eq!(engine.place(half, Policy::Fragmentation), Some(Choice { node: 1, grant: Grant([0b10, 0, 0, 0]) }));
    assert_eq!(engine.place(whole, Policy::Fragmentation).map(|c| c.node), Some(0));
}
