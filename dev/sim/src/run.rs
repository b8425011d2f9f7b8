//! One run: a world is built from its seed, lives through its faults, and must be healthy soon after they end; then it
//! must be at rest.

use crate::{agent, faults, health, interpose, log::Log, mutation::Mutation, server, user, world::World};
use std::time::Duration;
use turmoil::{Builder, Sim};

/// Simulated time of one step.
const TICK_MS: u64 = 10;
/// Longest time from the end of faults until everything is well.
const HEAL_MS_MAX: u64 = 90_000;
/// How long nothing may be written once everything is healthy.
const REST_MS: u64 = 1_500;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) hash: String,
    pub(crate) commits: u64,
    pub(crate) lines: u64,
    /// Simulated time of the whole.
    pub(crate) elapsed: Duration,
    /// From the end of faults until everything was well.
    pub(crate) healed: Duration,
    pub(crate) failure: Option<String>,
}

/// Runs one seed on this thread.
pub(crate) fn run(seed: u64, mutation: Mutation, print: bool) -> (Outcome, Log) {
    interpose::begin(seed);
    let log = Log::new(print);
    let world = World::new(seed, mutation, log.clone());
    log.note("world", format_args!("seed {seed}: {:?}", world.shape));
    let mut course = Course { sim: build(&world), world: world.clone(), healed: Duration::ZERO };
    if let Err(failure) = course.live() {
        log.fail(failure);
    }
    let outcome = Outcome {
        hash: log.hash(),
        commits: world.judge.ledger().commits,
        lines: log.count(),
        elapsed: course.sim.elapsed(),
        healed: course.healed,
        failure: log.failure(),
    };
    (outcome, log)
}

fn build(world: &World) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(world.seed)
        .tick_duration(Duration::from_millis(TICK_MS))
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(world.shape.latency_max)
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    for name in world.shape.servers.clone() {
        let shared = world.clone();
        sim.host(name.clone(), move || server::run(shared.clone(), name.clone()));
    }
    if world.shape.rival {
        let shared = world.clone();
        sim.host("rival", move || server::rival(shared.clone()));
    }
    for (number, node) in world.shape.nodes.iter().cloned().enumerate() {
        let shared = world.clone();
        sim.host(node.name.to_string(), move || agent::run(shared.clone(), node.clone(), number));
    }
    for number in 1..=world.shape.users {
        let shared = world.clone();
        sim.host(format!("user-{number}"), move || user::run(shared.clone(), number));
    }
    sim
}

struct Course {
    sim: Sim<'static>,
    world: World,
    healed: Duration,
}

impl Course {
    fn live(&mut self) -> Result<(), String> {
        let mut faults = faults::drawn(&self.world).into_iter().peekable();
        while self.sim.elapsed() < self.world.shape.chaos {
            while let Some((_, fault)) = faults.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                faults::carry_out(&self.world, &mut self.sim, &fault);
            }
            self.step()?;
        }
        faults::heal(&self.world, &mut self.sim);
        self.heal()?;
        self.rest()
    }

    fn step(&mut self) -> Result<(), String> {
        interpose::set_elapsed(self.sim.elapsed());
        self.sim.step().map_err(|error| format!("a host ended: {error}"))?;
        self.world.log.failure().map_or(Ok(()), Err)
    }

    fn for_ms(&mut self, ms: u64) -> Result<(), String> {
        let end = self.sim.elapsed() + Duration::from_millis(ms);
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        let begun = self.sim.elapsed();
        let end = begun + Duration::from_millis(HEAL_MS_MAX);
        loop {
            self.for_ms(100)?;
            let Some(wrong) = self.unwell() else { break };
            if self.sim.elapsed() >= end {
                return Err(format!("{HEAL_MS_MAX} ms after the last fault: {wrong}"));
            }
        }
        self.healed = self.sim.elapsed() - begun;
        self.world.log.note("world", format_args!("is well"));
        Ok(())
    }

    /// The first thing that is not in its wanted state, or is still being changed.
    fn unwell(&mut self) -> Option<String> {
        let mut users = 1..=self.world.shape.users;
        match users.find(|number| self.sim.is_host_running(format!("user-{number}"))) {
            Some(number) => Some(format!("user-{number} is still at work")),
            None => health::unwell(&self.world),
        }
    }

    /// What is healthy stays so, and nobody writes.
    fn rest(&mut self) -> Result<(), String> {
        // What was asked during the last fault and not answered yet: a heartbeat that hangs makes its node silent for a moment.
        self.for_ms(2_000)?;
        let before = self.world.judge.ledger().works;
        self.for_ms(REST_MS)?;
        let after = self.world.judge.ledger().works;
        if before != after {
            return Err(format!("{} commits although nothing is to be done", after - before));
        }
        health::unwell(&self.world).map_or(Ok(()), Err)
    }
}
