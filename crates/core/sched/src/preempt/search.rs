//! The cheapest of the sets of containers that make room on one node: branch and bound over their numbers, or a greedy
//! choice where that takes too long. Knows neither nodes nor rules: whether a set is enough is asked of the caller.

use std::{cmp::Reverse, collections::BTreeSet};

/// Partial sets that are looked at for one request on all nodes together; what is found beyond is not proven cheapest.
pub const PREEMPTION_STEPS_MAX: u32 = 100_000;
/// Containers of one node among which the cheapest set is searched; among more it is chosen greedily.
pub const PREEMPTION_CHOICES_MAX: usize = 128;

/// What it costs to let containers go; less is better, the first difference decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// The highest priority among them.
    pub(super) highest: i32,
    /// How many they are.
    pub(super) count: usize,
    /// Their priorities, added up.
    pub(super) priorities: i64,
    /// Their resources, measured and added up.
    pub(super) size: u128,
}

/// A container that may leave.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// The caller's name for it.
    pub(super) who: usize,
    pub(super) priority: i32,
    pub(super) size: u128,
    pub(super) amounts: [u64; 4],
    /// Containers of one kind are all the same to everybody.
    pub(super) kind: usize,
    /// Whose spare replicas it is one of, if these are counted.
    pub(super) budget: Option<usize>,
}

type Ask<'a> = Box<dyn Fn(&[usize]) -> bool + 'a>;

/// Whom to let go on one node.
pub(super) struct Task<'a> {
    /// Those without whose leaving nothing helps.
    pub(super) forced: Vec<Choice>,
    /// The others, those of the lowest priority first, those of one kind together.
    pub(super) choices: Vec<Choice>,
    /// How many of each budget may leave.
    pub(super) spare: Vec<u32>,
    /// What all together must give back at least.
    pub(super) missing: [u64; 4],
    /// Whether it is enough that those leave.
    pub(super) enough: Ask<'a>,
    /// Whether it can be enough that some of those leave; more of them never make it less possible.
    pub(super) possible: Ask<'a>,
}

/// The steps are used up, or there are too many choices.
#[derive(Debug)]
pub(super) struct TooLong;

pub(super) type Found = (Cost, Vec<usize>);

fn cost(gone: &[&Choice]) -> Cost {
    Cost {
        highest: gone.iter().map(|choice| choice.priority).max().unwrap_or(i32::MIN),
        count: gone.len(),
        priorities: gone.iter().map(|choice| i64::from(choice.priority)).sum(),
        size: gone.iter().map(|choice| choice.size).fold(0, u128::saturating_add),
    }
}

fn names(gone: &[&Choice]) -> Vec<usize> {
    gone.iter().map(|choice| choice.who).collect()
}

fn less(missing: &[u64; 4], amounts: &[u64; 4]) -> [u64; 4] {
    std::array::from_fn(|i| missing[i].saturating_sub(amounts[i]))
}

impl Task<'_> {
    /// The priorities that may be the highest of a set, each with how many choices it permits; without those with which
    /// no set can be enough.
    fn levels(&self) -> impl Iterator<Item = (i32, usize)> + '_ {
        let least = self.forced.iter().map(|choice| choice.priority).max();
        let own =
            self.choices.iter().map(|choice| choice.priority).filter(move |p| least.is_none_or(|least| *p > least));
        let all: BTreeSet<i32> = least.into_iter().chain(own).collect();
        let levels = all.into_iter().map(|level| (level, self.choices.partition_point(|c| c.priority <= level)));
        levels.filter(|(_, count)| {
            let all: Vec<&Choice> = self.forced.iter().chain(&self.choices[..*count]).collect();
            (self.possible)(&names(&all))
        })
    }

    /// What the choices must give back beside the forced ones.
    fn rest(&self) -> [u64; 4] {
        self.forced.iter().fold(self.missing, |missing, choice| less(&missing, &choice.amounts))
    }

    /// At least so many of the first `count` choices must go; none if all are not enough.
    fn fewest(&self, count: usize) -> Option<usize> {
        let rest = self.rest();
        let of = |dimension: usize| {
            let mut amounts: Vec<u64> = self.choices[..count].iter().map(|choice| choice.amounts[dimension]).collect();
            amounts.sort_unstable_by_key(|amount| Reverse(*amount));
            let mut left = rest[dimension];
            let mut taken = amounts.into_iter();
            let mut fewest = 0;
            while left > 0 {
                left = left.saturating_sub(taken.next()?);
                fewest += 1;
            }
            Some(fewest)
        };
        (0..4).map(of).try_fold(0, |most: usize, fewest| Some(most.max(fewest?)))
    }

    /// No set is cheaper than this: its highest priority and how many. None if there is no set at all.
    pub(super) fn bound(&self) -> Option<(i32, usize)> {
        self.levels().find_map(|(level, count)| Some((level, self.forced.len() + self.fewest(count)?)))
    }

    /// Those of `choices` that may go together with the forced ones, in their order.
    fn within_budgets<'c>(&'c self, choices: &'c [Choice]) -> Option<Vec<&'c Choice>> {
        let mut spare = self.spare.clone();
        let mut take = |choice: &Choice| match choice.budget {
            None => true,
            Some(budget) => {
                let left = spare[budget].checked_sub(1);
                spare[budget] = left.unwrap_or(0);
                left.is_some()
            }
        };
        self.forced.iter().all(&mut take).then(|| choices.iter().filter(|choice| take(choice)).collect())
    }

    /// A set of which none can stay, found in one pass: of the lowest priority that suffices, then one alone if that is
    /// enough, else those stay that matter most.
    pub(super) fn greedy(&self) -> Option<Found> {
        let enough = |some: &[&Choice]| {
            let all: Vec<&Choice> = self.forced.iter().chain(some.iter().copied()).collect();
            (self.enough)(&names(&all))
        };
        let start = |(_, count): (i32, usize)| self.within_budgets(&self.choices[..count]).filter(|some| enough(some));
        let mut some = self.levels().find_map(start)?;
        let mut one = some.clone();
        one.sort_by_key(|choice| (choice.priority, choice.size));
        if enough(&[]) {
            some.clear();
        } else if let Some(one) = one.iter().find(|one| enough(&[**one])) {
            some = vec![*one];
        } else {
            // Who matters most may stay first; of equals the smallest, so that few have to go.
            one.sort_by_key(|choice| (Reverse(choice.priority), choice.size));
            for who in one {
                let without: Vec<&Choice> = some.iter().copied().filter(|choice| choice.who != who.who).collect();
                if enough(&without) {
                    some = without;
                }
            }
        }
        let all: Vec<&Choice> = self.forced.iter().chain(some).collect();
        Some((cost(&all), names(&all)))
    }

    /// The cheapest set of all, if one is cheaper than `limit`.
    pub(super) fn exact(&self, limit: Option<Cost>, steps: &mut u32) -> Result<Option<Found>, TooLong> {
        if self.within_budgets(&[]).is_none() {
            return Ok(None);
        }
        for (level, count) in self.levels() {
            if limit.is_some_and(|limit| limit.highest < level) {
                break;
            }
            let Some(fewest) = self.fewest(count) else { continue };
            let same = limit.filter(|limit| limit.highest == level);
            let most = same.map_or(count, |limit| limit.count.saturating_sub(self.forced.len()).min(count));
            if fewest > most {
                continue;
            }
            if count > PREEMPTION_CHOICES_MAX {
                return Err(TooLong);
            }
            let cover = Cover::of(&self.choices[..count], most);
            for picks in fewest..=most {
                let limit = same.filter(|limit| limit.count == self.forced.len() + picks);
                let mut dive = Dive::new(self, &cover, count, limit);
                dive.go(0, picks, self.rest(), steps)?;
                if let Some(found) = dive.best {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

/// The most that so many of the choices from one on can give back, and the least that one of them measures.
struct Cover {
    most: Vec<Vec<[u64; 4]>>,
    smallest: Vec<u128>,
}

impl Cover {
    fn of(choices: &[Choice], picks_max: usize) -> Self {
        let mut sorted: [Vec<u64>; 4] = Default::default();
        let (mut most, mut smallest) = (Vec::new(), Vec::new());
        let mut least = u128::MAX;
        for choice in choices.iter().rev() {
            let mut sums = vec![[0u64; 4]; picks_max + 1];
            for (dimension, sorted) in sorted.iter_mut().enumerate() {
                let amount = choice.amounts[dimension];
                sorted.insert(sorted.partition_point(|other| *other >= amount), amount);
                for picks in 1..=picks_max {
                    let more = sorted.get(picks - 1).copied().unwrap_or(0);
                    sums[picks][dimension] = sums[picks - 1][dimension].saturating_add(more);
                }
            }
            most.push(sums);
            least = least.min(choice.size);
            smallest.push(least);
        }
        most.reverse();
        smallest.reverse();
        Self { most, smallest }
    }

    fn can_give(&self, from: usize, picks: usize, missing: &[u64; 4]) -> bool {
        self.most[from][picks].iter().zip(missing).all(|(most, missing)| most >= missing)
    }
}

/// A search among the sets of one size.
struct Dive<'a> {
    task: &'a Task<'a>,
    cover: &'a Cover,
    count: usize,
    picked: Vec<&'a Choice>,
    spare: Vec<u32>,
    /// What a set must be cheaper than: its priorities and its size.
    limit: Option<(i64, u128)>,
    best: Option<Found>,
}

impl<'a> Dive<'a> {
    fn new(task: &'a Task<'a>, cover: &'a Cover, count: usize, limit: Option<Cost>) -> Self {
        let mut spare = task.spare.clone();
        for budget in task.forced.iter().filter_map(|choice| choice.budget) {
            spare[budget] = spare[budget].saturating_sub(1);
        }
        let limit = limit.map(|limit| (limit.priorities, limit.size));
        Self { task, cover, count, picked: task.forced.iter().collect(), spare, limit, best: None }
    }

    /// Whether no set with what is picked and `picks` more of the choices from `at` on is cheap enough.
    fn is_too_dear(&self, at: usize, picks: usize) -> bool {
        let Some((priorities, size)) = self.limit else { return false };
        let so_far = cost(&self.picked);
        let least = self.task.choices.get(at).map_or(0, |choice| i64::from(choice.priority));
        let least_size = self.cover.smallest.get(at).copied().unwrap_or(0);
        let at_least = (
            so_far.priorities + least * i64::try_from(picks).unwrap_or(i64::MAX),
            so_far.size.saturating_add(least_size.saturating_mul(picks as u128)),
        );
        at_least.0 > priorities || (at_least.0 == priorities && at_least.1 >= size)
    }

    fn go(&mut self, at: usize, picks: usize, missing: [u64; 4], steps: &mut u32) -> Result<(), TooLong> {
        *steps = steps.checked_sub(1).ok_or(TooLong)?;
        if picks == 0 {
            self.judge(&missing);
            return Ok(());
        }
        let choices = &self.task.choices;
        for i in at..=self.count - picks {
            if !self.cover.can_give(i, picks, &missing) || self.is_too_dear(i, picks) {
                break;
            }
            // The same set again, with another one of the same kind.
            let is_again = i > at && choices[i].kind == choices[i - 1].kind;
            let budget = choices[i].budget;
            if is_again || budget.is_some_and(|budget| self.spare[budget] == 0) {
                continue;
            }
            budget.inspect(|budget| self.spare[*budget] -= 1);
            self.picked.push(&choices[i]);
            let gone = self.go(i + 1, picks - 1, less(&missing, &choices[i].amounts), steps);
            self.picked.pop();
            budget.inspect(|budget| self.spare[*budget] += 1);
            gone?;
        }
        Ok(())
    }

    fn judge(&mut self, missing: &[u64; 4]) {
        let cost = cost(&self.picked);
        let is_cheaper = self.limit.is_none_or(|limit| (cost.priorities, cost.size) < limit);
        if *missing == [0; 4] && is_cheaper && (self.task.enough)(&names(&self.picked)) {
            self.limit = Some((cost.priorities, cost.size));
            self.best = Some((cost, names(&self.picked)));
        }
    }
}
