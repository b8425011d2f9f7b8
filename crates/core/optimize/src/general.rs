//! The whole way: prices, a first solution, search, and the judgement of both. Knows of no kind of problem but packing apart.

use heptad_certify::{Certificate, Problem};

use crate::{
    Budget, OptimizeError, Outcome, greedy,
    model::Model,
    outcome::best,
    pack,
    price::{self, Prices},
    random::Random,
    relax,
    search::Search,
    state::{State, solution},
    volume,
    work::Work,
};

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
    let (prices, certificates) = bounds(&model, &present, &mut work);
    let goal = goal(problem, &certificates, budget)?;
    let start = first(&model, present, &prices, &mut work);
    let mut search = Search::new(start, &prices, goal, &mut random, &mut work);
    search.run();
    let found = search.best();
    Outcome::judge(problem, solution(&found)?, certificates, work.spent())
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
    let mut certificates: Vec<Certificate> = candidates.iter().map(|prices| prices.certificate(problem)).collect();
    let value = |certificate: &Certificate| {
        heptad_certify::verify(problem, certificate).map_or(i128::MIN, |bound| bound.numerator >> bound.scale_bits)
    };
    let start = (0..candidates.len()).rev().max_by_key(|at| value(&certificates[*at])).unwrap_or(0);
    let upper = if known.banked == 0 { price::signed(known.cost) } else { f64::NEG_INFINITY };
    let (prices, _) = price::ascend(model, candidates.swap_remove(start), upper, work);
    certificates.push(prices.certificate(problem));
    (prices, certificates)
}

/// The cost at which the search may stop.
fn goal(problem: &Problem, certificates: &[Certificate], budget: &Budget) -> Result<i64, OptimizeError> {
    let (_, bound) = best(problem, certificates.to_vec())?;
    let bound = bound.cost();
    let slack = bound.abs() * i128::from(budget.gap_ppm) / 1_000_000;
    Ok(i64::try_from(bound + slack).unwrap_or(i64::MIN))
}

/// The best of: the present assignment completed, one made by the prices, and one rounded from the linear program.
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
