//! The whole method: prices, a first solution, search, and the judgement of both. Treats no kind of problem specially
//! except packing.

use heptad_certify::{Certificate, Problem};

use crate::{
    Budget, OptimizeError, Outcome,
    consolidate::consolidate,
    greedy,
    model::{Model, NONE},
    outcome::best,
    pack::{self, squeeze::Squeeze},
    price::{self, Prices},
    random::Random,
    relax,
    search::Search,
    state::{State, solution},
    volume,
    work::Work,
};

/// Shares of the volume prices to try: where moves cost, an opened node must pay for them too.
const LOWERED: [f64; 9] = [1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.25, 0.0];

/// How many rounds may pass before emptying nodes gives way to the search over all.
const PATIENCE_ROUNDS: usize = 10_000;

/// Finds a solution of low cost and proves how far it may be from the best. The same problem, budget and seed give the same outcome as long
/// as `keep_going` does not interrupt.
///
/// # Errors
/// A problem that is not valid or has no solution that could be found, and numbers too large to be exact.
pub fn optimize(
    problem: &Problem,
    budget: &Budget,
    seed: u64,
    keep_going: &dyn Fn() -> bool,
) -> Result<Outcome, OptimizeError> {
    match problem.dimensions {
        0 | 1 => run::<1>(problem, budget, seed, keep_going),
        2 => run::<2>(problem, budget, seed, keep_going),
        3 => run::<3>(problem, budget, seed, keep_going),
        4 => run::<4>(problem, budget, seed, keep_going),
        _ => run::<8>(problem, budget, seed, keep_going),
    }
}

fn run<const D: usize>(
    problem: &Problem,
    budget: &Budget,
    seed: u64,
    keep_going: &dyn Fn() -> bool,
) -> Result<Outcome, OptimizeError> {
    let model = Model::<D>::new(problem)?;
    let mut work = Work::new(budget.steps_max, keep_going);
    if model.only_nodes_cost() {
        return pack::run(&model, budget, seed, work);
    }
    let mut random = Random::new(seed);
    let mut present = State::new(&model);
    greedy::stay(&mut present);
    greedy::place_rest(&mut present, &Prices::zero(problem), &mut work);
    consolidate(&mut present, &mut work);
    let (prices, certificates) = bounds(&model, &present, &mut work);
    let proven = best(problem, certificates)?;
    let goal = budget.goal(&proven.1);
    let mut start = first(&model, present, &prices, &mut work);
    consolidate(&mut start, &mut work);
    if model.opening.iter().any(|opening| *opening > 0) && start.banked == 0 {
        let squeezed = Squeeze::new(start.clone(), goal, &mut random, &mut work).with_patience(PATIENCE_ROUNDS).run();
        start.load(&squeezed);
    }
    let mut search = Search::new(start, &prices, goal, &mut random, &mut work);
    search.run();
    let found = search.best();
    Outcome::judge(problem, solution(&found)?, proven, work.spent())
}

/// The prices that guide the search, and all certificates.
fn bounds<const D: usize>(
    model: &Model<'_, D>,
    known: &State<'_, D>,
    work: &mut Work<'_>,
) -> (Prices, Vec<Certificate>) {
    let problem = model.problem;
    let mut candidates = volume::prices(model);
    candidates.push(Prices::zero(problem));
    let mut start = best_of(model, candidates, work);
    if model.items.iter().any(|row| row.current != NONE) {
        let lowered = LOWERED.iter().map(|share| start.scaled(*share)).collect::<Vec<_>>().into_iter();
        let lowered = lowered.map(|prices| price::with_moves(model, prices, work)).collect();
        start = best_of(model, lowered, work);
    }
    let first = start.certificate(problem);
    let upper = if known.banked == 0 { price::signed(known.cost) } else { f64::NEG_INFINITY };
    let (prices, _) = price::ascend(model, start, upper, work);
    let (prices, _) = price::completed(model, prices, work);
    let last = prices.certificate(problem);
    (prices, vec![first, last])
}

/// The prices with the highest bound, with their prices of staying.
fn best_of<const D: usize>(model: &Model<'_, D>, candidates: Vec<Prices>, work: &mut Work<'_>) -> Prices {
    let (mut best, mut best_value) = (Prices::zero(model.problem), f64::NEG_INFINITY);
    for prices in candidates {
        let (prices, value) = price::completed(model, prices, work);
        if value > best_value {
            (best, best_value) = (prices, value);
        }
    }
    best
}

/// The best of three: the present assignment completed, one built from the prices, and one rounded from the linear
/// program.
fn first<'m, const D: usize>(
    model: &'m Model<'m, D>,
    present: State<'m, D>,
    prices: &Prices,
    work: &mut Work<'_>,
) -> State<'m, D> {
    let mut priced = State::new(model);
    if model.moves_max == u64::MAX {
        greedy::place_rest(&mut priced, prices, work);
    }
    let rounded = relax::rounded(model, prices, work);
    [present, priced].into_iter().chain(rounded).min_by_key(|state| state.cost).unwrap_or_else(|| State::new(model))
}
