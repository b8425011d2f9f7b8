//! Checks that a solution keeps every rule of its problem, and computes its cost. Shares no code with any search.

use std::collections::BTreeMap;

use crate::{Item, NO_DOMAIN, NodeIndex, Problem, SolutionError};

/// An answer: the node of each item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// One per item; `None`: left out.
    pub nodes: Vec<Option<NodeIndex>>,
}

/// The cost of a solution and its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// The whole objective.
    pub cost: i128,
    /// Items that leave their present nodes.
    pub moves: u64,
    /// Nodes with at least one item.
    pub nodes_used: usize,
    /// Items left out.
    pub unplaced: usize,
}

/// Checks every rule of the problem and adds up the cost.
///
/// # Errors
/// The first rule that is broken, or a sum that cannot be exact.
pub fn verify_solution(problem: &Problem, solution: &Solution) -> Result<Score, SolutionError> {
    problem.check().map_err(SolutionError::Problem)?;
    let (expected, found) = (problem.items.len(), solution.nodes.len());
    if expected != found {
        return Err(SolutionError::Length { expected, found });
    }
    let mut tally = Tally::new(problem);
    for (at, (item, node)) in problem.items.iter().zip(&solution.nodes).enumerate() {
        tally.count(at, item, *node)?;
    }
    tally.finish()
}

/// Totals over the items seen so far.
struct Tally<'a> {
    problem: &'a Problem,
    free: Vec<crate::Amounts>,
    used: Vec<bool>,
    group_moves: Vec<u64>,
    domains: BTreeMap<(u32, u32), u32>,
    score: Score,
}

impl<'a> Tally<'a> {
    fn new(problem: &'a Problem) -> Self {
        Self {
            problem,
            free: problem.nodes.iter().map(|node| node.capacity).collect(),
            used: vec![false; problem.nodes.len()],
            group_moves: vec![0; problem.groups.len()],
            domains: BTreeMap::new(),
            score: Score::default(),
        }
    }

    fn count(&mut self, at: usize, item: &Item, node: Option<NodeIndex>) -> Result<(), SolutionError> {
        match node {
            Some(node) => self.place(at, item, node)?,
            None => {
                self.pay(i128::from(item.unplaced_price.ok_or(SolutionError::Unplaced { item: at })?))?;
                self.score.unplaced += 1;
            }
        }
        if item.current.is_some() && item.current != node {
            self.score.moves += 1;
            self.pay(i128::from(item.move_price))?;
            if let Some(group) = item.group {
                self.group_moves[group as usize] += 1;
            }
        }
        Ok(())
    }

    fn place(&mut self, at: usize, item: &Item, node: NodeIndex) -> Result<(), SolutionError> {
        let index = node as usize;
        let class = self.problem.class_of(item);
        let place = self.problem.nodes.get(index).ok_or(SolutionError::NoNode { item: at, node })?;
        if !class.allows(index) {
            return Err(SolutionError::NotAllowed { item: at, node });
        }
        for (dimension, (free, demand)) in self.free[index].iter_mut().zip(class.demand).enumerate() {
            *free = free.checked_sub(demand).ok_or(SolutionError::Capacity { node: index, dimension })?;
        }
        if !std::mem::replace(&mut self.used[index], true) {
            self.score.nodes_used += 1;
            self.pay(i128::from(place.opening))?;
        }
        self.pay(i128::from(class.cost(index)))?;
        item.limits.iter().try_for_each(|limit| self.enter(*limit, index))
    }

    fn enter(&mut self, limit: u32, node: usize) -> Result<(), SolutionError> {
        let rule = &self.problem.limits[limit as usize];
        let domain = rule.domains[node];
        if domain == NO_DOMAIN {
            return Ok(());
        }
        let count = self.domains.entry((limit, domain)).or_insert(0);
        *count += 1;
        if *count > rule.max { Err(SolutionError::Limit { limit: limit as usize, domain }) } else { Ok(()) }
    }

    fn pay(&mut self, amount: i128) -> Result<(), SolutionError> {
        self.score.cost = self.score.cost.checked_add(amount).ok_or(SolutionError::Overflow)?;
        Ok(())
    }

    fn finish(self) -> Result<Score, SolutionError> {
        let moves = self.score.moves;
        if let Some(moves_max) = self.problem.moves_max.filter(|max| moves > *max) {
            return Err(SolutionError::Moves { moves, moves_max });
        }
        for (group, (moves, rule)) in self.group_moves.into_iter().zip(&self.problem.groups).enumerate() {
            if moves > rule.moves_max {
                return Err(SolutionError::GroupMoves { group, moves, moves_max: rule.moves_max });
            }
        }
        Ok(self.score)
    }
}
