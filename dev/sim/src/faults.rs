//! The faults of one run: drawn before it begins, as a list of events with times; then applied to the simulation.

use crate::{draw::Draw, world::World};
use heptad_model::NodeName;
use heptad_state::Store;
use std::time::Duration;
use turmoil::Sim;

/// What happens to hosts and the ways between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A host loses its processes; a machine may lose its containers too.
    Crash { host: String, wiped: bool },
    /// A host starts again; one that runs is restarted.
    Start { host: String },
    /// No message passes, in both directions or from the first to the second.
    Cut { a: String, b: String, one_way: bool },
    /// Messages wait.
    Hold { a: String, b: String },
    /// Messages pass again.
    Mend { a: String, b: String },
    /// What a server sends to the store waits until then, as if the server were paused at its next step.
    Stall { server: String, until: Duration },
    /// A machine starts nothing until then, for a reason of its own.
    Refuse { node: NodeName, until: Duration },
    /// The store drops its history.
    Compact,
}

/// Faults with their times, in order.
pub(crate) fn drawn(world: &World) -> Vec<(Duration, Fault)> {
    let mut draw = Draw::of(world.seed, "faults");
    let chaos_ms = u64::try_from(world.shape.chaos.as_millis()).expect("it is some seconds");
    let mut faults = Vec::new();
    for _ in 0..draw.within(2, 7) {
        let begin = draw.ms(300, chaos_ms);
        let end = begin + if draw.chance(200) { draw.ms(2_000, 4_500) } else { draw.ms(50, 1_500) };
        pair(world, &mut draw, begin, end, &mut faults);
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// A fault and its end.
fn pair(world: &World, draw: &mut Draw, begin: Duration, end: Duration, faults: &mut Vec<(Duration, Fault)>) {
    let node = draw.pick(&world.shape.nodes).name.to_string();
    let server = draw.pick(&world.shape.servers).clone();
    let (fault, undone) = match draw.within(0, 99) {
        0..20 => (Fault::Crash { host: server.clone(), wiped: false }, Fault::Start { host: server }),
        20..45 => (Fault::Crash { host: node.clone(), wiped: draw.chance(300) }, Fault::Start { host: node }),
        45..55 => (Fault::Start { host: node.clone() }, Fault::Start { host: node }),
        55..65 => {
            faults.push((begin, Fault::Stall { server, until: end }));
            return;
        }
        65..75 => {
            let cut = Fault::Cut { a: node.clone(), b: server.clone(), one_way: false };
            (cut, Fault::Mend { a: node, b: server })
        }
        75..82 => {
            let (a, b) = if draw.chance(500) { (node, server) } else { (server, node) };
            (Fault::Cut { a: a.clone(), b: b.clone(), one_way: true }, Fault::Mend { a, b })
        }
        82..90 => {
            // No longer than a request that is given up may be on its way.
            faults.push((begin + draw.ms(50, 1_000), Fault::Mend { a: node.clone(), b: server.clone() }));
            faults.push((begin, Fault::Hold { a: node, b: server }));
            return;
        }
        90..96 => {
            // Long enough to be tried several times.
            let until = begin + draw.ms(1_500, 5_000);
            faults.push((begin, Fault::Refuse { node: node.as_str().into(), until }));
            return;
        }
        _ => (Fault::Compact, Fault::Compact),
    };
    faults.push((begin, fault));
    faults.push((end, undone));
}

/// Lets a fault happen.
pub(crate) fn carry_out(world: &World, sim: &mut Sim<'_>, fault: &Fault) {
    world.log.note("fault", format_args!("{fault:?}"));
    match fault {
        Fault::Crash { host, wiped } => {
            if sim.is_host_running(host.as_str()) {
                sim.crash(host.as_str());
            }
            if *wiped {
                world.machines().wipe(&host.as_str().into());
            }
        }
        Fault::Start { host } => sim.bounce(host.as_str()),
        Fault::Cut { a, b, one_way: true } => sim.partition_oneway(a.as_str(), b.as_str()),
        Fault::Cut { a, b, one_way: false } => sim.partition(a.as_str(), b.as_str()),
        Fault::Hold { a, b } => sim.hold(a.as_str(), b.as_str()),
        Fault::Mend { a, b } => mend(sim, a, b),
        Fault::Stall { server, until } => world.stall(server, *until),
        Fault::Refuse { node, until } => world.refuse(node, *until),
        Fault::Compact => compact(world),
    }
}

fn mend(sim: &Sim<'_>, a: &str, b: &str) {
    sim.release(a, b);
    sim.repair(a, b);
}

/// The store in memory answers at once, so that nobody has to wait for it.
fn compact(world: &World) {
    use std::task::{Context, Waker};
    let revision = world.judge.ledger().mirror.revision;
    if revision > 1 {
        let _ = world.store.compact(revision).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// Ends all faults.
pub(crate) fn heal(world: &World, sim: &mut Sim<'_>) {
    world.calm_down();
    world.log.note("fault", format_args!("all faults end"));
    let nodes = || world.shape.nodes.iter().map(|node| node.name.as_str());
    let servers = || world.shape.servers.iter().map(String::as_str);
    for node in nodes() {
        servers().for_each(|server| mend(sim, node, server));
    }
    for host in nodes().chain(servers()) {
        if !sim.is_host_running(host) {
            sim.bounce(host);
        }
    }
}
