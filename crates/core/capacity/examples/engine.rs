//! How many placements the engine decides per second of CPU time: a cluster that is full to a given degree, from which
//! something leaves for everything that comes. Arguments: nodes, decisions, fill in percent, policy, shapes.

#[path = "../../sched/examples/cpu/mod.rs"]
mod cpu;

use cpu::cpu_seconds;
use heptad_capacity::engine::{Choice, ClassId, ClassSpec, Engine, NodeCapacity, Policy};
use std::io::Write;

/// A small generator with a fixed sequence.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const GIB: u64 = 1 << 30;

/// Machines of three sizes and two kinds.
fn capacity(draw: &mut Draw) -> NodeCapacity {
    let size = 1 << draw.below(3);
    let memory = if draw.below(4) == 0 { 8 } else { 4 };
    NodeCapacity { amounts: [16_000 * size, 16 * memory * size * GIB, 500 * size * GIB, 10_000], ..Default::default() }
}

/// Shapes as people ask them, uneven in their proportions.
fn shape(draw: &mut Draw) -> ClassSpec {
    let cpu = [100, 250, 500, 1000, 2000, 4000][draw.below(6) as usize] + 50 * draw.below(5);
    let memory = cpu * (1 + draw.below(8)) * (GIB / 2000);
    ClassSpec::of([cpu, memory, (1 + draw.below(20)) * GIB, 10 * draw.below(30)])
}

struct Churn {
    engine: Engine,
    classes: Vec<ClassId>,
    policy: Policy,
    bound: Vec<(Choice, ClassId)>,
    draw: Draw,
}

impl Churn {
    fn class(&mut self) -> ClassId {
        self.classes[self.draw.below(self.classes.len() as u64) as usize]
    }

    fn arrive(&mut self) -> bool {
        let class = self.class();
        let choice = self.engine.place(class, self.policy);
        self.bound.extend(choice.map(|choice| (choice, class)));
        choice.is_some()
    }

    fn leave(&mut self) {
        let which = self.draw.below(self.bound.len() as u64) as usize;
        let (choice, class) = self.bound.swap_remove(which);
        self.engine.release(choice, class);
    }
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: u64| args.get(i).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let (nodes, decisions, fill, shapes) = (number(1, 5000), number(2, 500_000), number(3, 85), number(5, 500));
    let policy = match args.get(4).map(String::as_str) {
        Some("spread") => Policy::Spread,
        Some("fgd") => Policy::Fragmentation,
        _ => Policy::Pack,
    };
    let mut draw = Draw(7);
    let capacities: Vec<NodeCapacity> = (0..nodes).map(|_| capacity(&mut draw)).collect();
    let total: u64 = capacities.iter().map(|node| node.amounts[0]).sum();
    let mut engine = Engine::new(capacities);
    let classes = (0..shapes).map(|_| engine.add_class(shape(&mut draw))).collect();
    let mut churn = Churn { engine, classes, policy, bound: Vec::new(), draw };
    let free = |engine: &Engine| (0..engine.len()).map(|node| engine.amounts(node)[0]).sum::<u64>();
    while free(&churn.engine) * 100 > total * (100 - fill) && (0..64).all(|_| churn.arrive()) {}
    let bound = churn.bound.len();
    let filled = 100 - free(&churn.engine) * 100 / total;
    let started = cpu_seconds();
    let mut refused = 0;
    for _ in 0..decisions {
        churn.leave();
        refused += u64::from(!churn.arrive());
    }
    let seconds = cpu_seconds() - started;
    writeln!(
        std::io::stdout(),
        "{nodes} nodes, {policy:?}, {shapes} shapes, {bound} bound ({filled} % of CPU): {:.0} decisions per CPU second, \
         {:.2} us each with a departure; {refused} refused",
        decisions as f64 / seconds,
        seconds * 1e6 / decisions as f64
    )
}
