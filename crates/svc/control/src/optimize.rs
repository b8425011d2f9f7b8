//! The optimiser at work: suggests moves that free nodes, begins them, and does so by itself if told to. `sched` says
//! what may move, `optimize` searches, and `certify` judges the result.

use crate::{
    clock::now_ms,
    error::{Error, Result},
    keys,
    objects::{Objects, Pending},
    options::{OptimizeMode, Options},
    rows::Rows,
};
use heptad_api::{
    ErrorCode,
    optimization::{Certified, Optimization, PlannedMove},
};
use heptad_capacity::NodesView;
use heptad_certify::{Problem, Solution, verify_solution};
use heptad_life::is_at_rest;
use heptad_model::{Container, ContainerId, EventKind, Reservation, Service, ServiceKey};
use heptad_optimize::{Budget, Outcome};
use heptad_sched::consolidate::{Instance, Prices, Relocation, consolidation, possible_now};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Moves that one transaction begins.
const MOVES_OF_TRANSACTION_MAX: usize = 50;
/// A move is given up if its successor does not serve after this time.
const MOVE_MS_MAX: u64 = 300_000;
/// Any number will do; it is the same everywhere, so that the same state gives the same moves.
const SEED: u64 = 7;

/// Moves found on one state.
pub(crate) struct Suggestion {
    rows: Rows,
    relocations: Vec<Relocation>,
    now: Vec<Relocation>,
    pub(crate) answer: Optimization,
}

/// The moves that free nodes, at most `moves_max`, searched for `search_ms` at most.
pub(crate) async fn suggest(objects: &Objects, moves_max: u64, search_ms: u64) -> Result<Suggestion> {
    let rows = Rows::load(objects, false).await?;
    beside(move || suggested(rows, moves_max, search_ms)).await
}

/// What the present placement costs, and a bound below which no placement costs, however many moves lead to it.
pub(crate) async fn present(rows: Rows, search_ms: u64) -> Result<Certified> {
    beside(move || {
        let prices = Prices::default();
        let (view, instance) = stated(&rows, &prices);
        let instance = instance.without_moves();
        let now = instance.solution(&view, |id| rows.containers.get(id)?.object.node.clone());
        certified(cost(&instance, &now)?, &instance, &search(&instance.problem, search_ms)?, &prices)
    })
    .await
}

/// Works beside the other tasks.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| failed("the search ended abnormally"))?
}

fn failed(what: impl std::fmt::Display) -> Error {
    Error::refused(ErrorCode::Internal, format!("cannot optimise the placement: {what}"))
}

/// Searches beside the other tasks.
pub(crate) async fn searched(instance: Instance, search_ms: u64) -> Result<(Instance, Outcome)> {
    beside(move || search(&instance.problem, search_ms).map(|outcome| (instance, outcome))).await
}

/// Searches for `search_ms`. When this returns, the checker has judged both the solution and its bound.
fn search(problem: &Problem, search_ms: u64) -> Result<Outcome> {
    let until = Instant::now() + Duration::from_millis(search_ms);
    heptad_optimize::optimize(problem, &Budget::default(), SEED, &|| Instant::now() < until).map_err(failed)
}

/// The costs in numbers for people.
pub(crate) fn certified(before: i128, instance: &Instance, outcome: &Outcome, prices: &Prices) -> Result<Certified> {
    let small = |cost: i128| i64::try_from(cost).unwrap_or(i64::MAX);
    let (cost, bound) = (outcome.cost, instance.lower_bound(&outcome.certificate).map_err(failed)?);
    let gap = (cost - bound).max(0).saturating_mul(1_000_000) as u128;
    Ok(Certified {
        cost_before: small(before),
        cost: small(cost),
        lower_bound: small(bound),
        gap_ppm: u64::try_from(gap.div_ceil(cost.unsigned_abs().max(1))).unwrap_or(u64::MAX),
        cost_of_node: prices.opening,
        cost_of_move: prices.per_move,
        cost_of_unplaced: prices.unplaced,
    })
}

/// The rows as a problem.
fn stated(rows: &Rows, prices: &Prices) -> (Arc<NodesView>, Instance) {
    let view = rows.nodes_view();
    let now_ms = now_ms();
    let at_rest = |key: &ServiceKey| {
        let service = rows.services.get(key).map(|item| &item.object)?;
        is_at_rest(service, &rows.containers_of(key), now_ms).then_some(service)
    };
    let at_rest: BTreeMap<&ServiceKey, &Service> =
        rows.services.keys().filter_map(|key| Some((key, at_rest(key)?))).collect();
    let containers = rows.containers.values().map(|item| &item.object);
    let instance = consolidation(&view, containers, |key| at_rest.get(key).copied(), prices);
    (view, instance)
}

fn suggested(rows: Rows, moves_max: u64, search_ms: u64) -> Result<Suggestion> {
    let prices = Prices { moves_max, ..Prices::default() };
    let (view, instance) = stated(&rows, &prices);
    let container = |id: &ContainerId| rows.containers.get(id).map(|item| &item.object);
    let before = instance.solution(&view, |id| container(id)?.node.clone());
    let cost_before = cost(&instance, &before)?;
    let outcome = search(&instance.problem, search_ms)?;
    let relocations = instance.relocations(&view, &outcome.solution, container);
    let now = possible_now(&view, &relocations, container);
    let planned = |m: &Relocation| PlannedMove {
        container: m.container.clone(),
        service: m.service.clone(),
        from: m.from.clone(),
        to: m.to.clone(),
        now: now.contains(m),
    };
    let answer = Optimization {
        revision: rows.revision,
        movable: instance.containers.len(),
        fixed: instance.fixed,
        nodes_used: instance.nodes_used(&before),
        nodes_used_after: instance.nodes_used(&outcome.solution),
        moves: relocations.iter().map(planned).collect(),
        certified: certified(cost_before, &instance, &outcome, &prices)?,
        begun: 0,
    };
    Ok(Suggestion { rows, relocations, now, answer })
}

pub(crate) fn cost(instance: &Instance, solution: &Solution) -> Result<i128> {
    verify_solution(&instance.problem, solution).map(|score| score.cost).map_err(failed)
}

/// Begins the moves that are possible now; a container that changed meanwhile is left alone. Returns how many began.
pub(crate) async fn begin(objects: &Objects, suggestion: &Suggestion) -> Result<usize> {
    let mut begun = 0;
    for piece in suggestion.now.chunks(MOVES_OF_TRANSACTION_MAX) {
        let mut pending = Pending::default();
        for relocation in piece {
            let Some(item) = suggestion.rows.containers.get(&relocation.container) else { continue };
            let key = keys::container(&relocation.container);
            let move_to = Some(Reservation { node: relocation.to.clone(), until_ms: now_ms() + MOVE_MS_MAX });
            pending.expect(&key, item.revision);
            pending.put(&key, &Container { move_to, ..item.object.clone() });
            let message =
                format!("it moves from node {} to node {}, to need fewer nodes", relocation.from, relocation.to);
            let subject = format!("container/{}", relocation.container);
            pending.event(&objects.event(EventKind::Normal, "Moving", &subject, message)?);
        }
        if pending.commit(&**objects.store()).await?.is_none() {
            break;
        }
        begun += piece.len();
    }
    Ok(begun)
}

/// What the moves gain, in words.
fn gain(found: &Optimization) -> String {
    let (moves, before, after) = (found.moves.len(), found.nodes_used, found.nodes_used_after);
    let moves = if moves == 1 { "a move".to_owned() } else { format!("{moves} moves") };
    format!("{moves} would leave {after} of the {before} used nodes in use")
}

/// Suggests or makes moves repeatedly while this server leads.
pub(crate) async fn run(objects: Objects, options: Arc<Options>, stop: CancellationToken) {
    if options.optimize == OptimizeMode::Off {
        return;
    }
    let mut told = String::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(Duration::from_millis(options.optimize_interval_ms)) => {}
        }
        if let Err(error) = turn(&objects, &options, &mut told).await {
            if error.is_fenced() {
                return;
            }
            tracing::warn!(error = crate::error::with_causes(&error), "the placement was not optimised");
        }
    }
}

async fn turn(objects: &Objects, options: &Options, told: &mut String) -> Result<()> {
    let suggestion = suggest(objects, options.optimize_moves_max, options.optimize_search_ms).await?;
    let answer = &suggestion.answer;
    let freed = answer.nodes_used.saturating_sub(answer.nodes_used_after);
    if freed == 0 {
        told.clear();
        return Ok(());
    }
    if options.optimize == OptimizeMode::Auto {
        let begun = begin(objects, &suggestion).await?;
        tracing::info!(begun, moves = suggestion.relocations.len(), freed, "containers are moved to free nodes");
        return Ok(());
    }
    let words = format!("{}; `heptad optimize` shows more", gain(answer));
    if *told != words {
        let subject = suggestion.relocations.first().map_or_else(String::new, |first| format!("node/{}", first.from));
        objects.create_event(objects.event(EventKind::Normal, "Suggestion", &subject, &*words)?, None).await?;
        *told = words;
    }
    Ok(())
}
