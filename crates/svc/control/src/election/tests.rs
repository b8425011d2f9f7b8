//! The election with plain values, and many servers with drifting attention against one pair of rows.

use super::*;
use proptest::prelude::*;

const TERMS: Terms = Terms { lease_ms: 100, renew_interval_ms: 20 };

/// The rows as a store would keep them.
#[derive(Clone, Debug, Default)]
struct Rows {
    revision: Revision,
    seen: Seen,
}

impl Rows {
    /// Does a step if the rows are still as they were when it was decided. Returns whether it was committed.
    fn commit(&mut self, step: &Step, decided_on: &Seen) -> bool {
        if self.seen != *decided_on {
            return false;
        }
        self.revision += 1;
        match step {
            Step::TakeOver(generation) => {
                self.seen.generation = Some((self.revision, generation.clone()));
                self.seen.lease = Some((self.revision, first_lease(generation)));
            }
            Step::Renew(lease) => self.seen.lease = Some((self.revision, lease.clone())),
            Step::Wait(_) | Step::Resign => unreachable!("nothing to commit"),
        }
        true
    }

    /// A whole turn of one server.
    fn turn(&mut self, server: &mut Election, now_ms: u64) -> Step {
        let decided_on = self.seen.clone();
        let step = server.look(&decided_on, now_ms);
        match &step {
            Step::TakeOver(_) if self.commit(&step, &decided_on) => server.took_over(self.revision, now_ms),
            Step::Renew(_) if self.commit(&step, &decided_on) => server.renewed(now_ms),
            _ => {}
        }
        step
    }
}

#[test]
fn the_first_takes_over_renews_and_the_second_follows() {
    let (mut rows, mut a, mut b) =
        (Rows::default(), Election::new("a", "run-a", TERMS), Election::new("b", "run-b", TERMS));
    assert!(matches!(rows.turn(&mut a, 0), Step::TakeOver(Generation { number: 1, .. })));
    assert_eq!(rows.turn(&mut b, 1), Step::Wait(20));
    assert_eq!(rows.turn(&mut a, 5), Step::Wait(15));
    assert!(matches!(rows.turn(&mut a, 20), Step::Renew(Lease { renewal: 1, generation: 1, .. })));
    // The renewal begins the waiting anew.
    assert_eq!(rows.turn(&mut b, 101), Step::Wait(20));
    assert_eq!((a.leads(119), a.leads(120), b.leads(0)), (Some(1), None, None));
}

#[test]
fn a_silent_leader_is_replaced_and_steps_down() {
    let (mut rows, mut a, mut b) =
        (Rows::default(), Election::new("a", "run-a", TERMS), Election::new("b", "run-b", TERMS));
    rows.turn(&mut a, 0);
    rows.turn(&mut b, 10);
    assert_eq!(rows.turn(&mut b, 109), Step::Wait(1));
    assert!(matches!(rows.turn(&mut b, 110), Step::TakeOver(Generation { number: 2, .. })));
    assert_eq!(a.leads(110), None, "it had stopped before");
    assert_eq!(rows.turn(&mut a, 111), Step::Resign);
    assert_eq!(rows.turn(&mut a, 112), Step::Wait(20));
}

#[test]
fn a_leader_that_was_cut_off_goes_on_if_nobody_took_over() {
    let (mut rows, mut a) = (Rows::default(), Election::new("a", "run-a", TERMS));
    rows.turn(&mut a, 0);
    assert_eq!(a.leads(500), None);
    assert!(matches!(rows.turn(&mut a, 500), Step::Renew(_)));
    assert_eq!(a.leads(500), Some(1), "in the same generation");
}

#[test]
fn a_restarted_server_does_not_wait_for_itself_but_two_of_one_name_do() {
    let (mut rows, mut a) = (Rows::default(), Election::new("a", "run-a", TERMS));
    rows.turn(&mut a, 0);
    let mut again = Election::new("a", "run-a2", TERMS);
    assert!(matches!(rows.turn(&mut again, 1), Step::TakeOver(Generation { number: 2, .. })));
    assert_eq!(rows.turn(&mut a, 2), Step::Resign);
    // Only its very first look may be that quick.
    assert_eq!(rows.turn(&mut a, 3), Step::Wait(20));
}

#[test]
fn a_takeover_without_an_answer_counts_once_it_is_renewed() {
    let (mut rows, mut a) = (Rows::default(), Election::new("a", "run-a", TERMS));
    let step = a.look(&rows.seen, 0);
    assert!(rows.commit(&step, &Seen::default()), "and the answer is lost");
    assert_eq!(a.leads(1), None);
    assert!(matches!(rows.turn(&mut a, 30), Step::Renew(_)));
    assert_eq!((a.leads(129), a.leads(130)), (Some(1), None));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (mut rows, mut a, mut b) =
        (Rows::default(), Election::new("a", "run-a", TERMS), Election::new("b", "run-b", TERMS));
    rows.turn(&mut a, 0);
    rows.turn(&mut b, 1);
    rows.seen.lease = None;
    assert!(matches!(rows.turn(&mut b, 2), Step::TakeOver(Generation { number: 2, .. })));
}

proptest! {
    /// Servers act at any times, with any pauses, reading long before they write. At every moment at most one believes
    /// that it leads, its fence is the newest generation, and generations only grow.
    #[test]
    fn never_two_leaders(script in prop::collection::vec((0usize..3, 0u64..60, any::<bool>()), 1..400)) {
        let mut rows = Rows::default();
        let mut servers = ["a", "b", "c"].map(|name| Election::new(name, name, TERMS));
        let mut in_flight: [Option<(Step, Seen, u64)>; 3] = [None, None, None];
        let (mut now_ms, mut newest) = (0, 0);
        for (who, pause_ms, late) in script {
            now_ms += pause_ms;
            let server = &mut servers[who];
            match in_flight[who].take() {
                Some((step, decided_on, began_ms)) => {
                    let committed = rows.commit(&step, &decided_on);
                    match step {
                        Step::TakeOver(_) if committed => server.took_over(rows.revision, began_ms),
                        Step::Renew(_) if committed => server.renewed(began_ms),
                        _ => {}
                    }
                }
                None if late => {
                    let step = server.look(&rows.seen, now_ms);
                    if matches!(step, Step::TakeOver(_) | Step::Renew(_)) {
                        in_flight[who] = Some((step, rows.seen.clone(), now_ms));
                    }
                }
                None => {
                    rows.turn(server, now_ms);
                }
            }
            let leading: Vec<Revision> = servers.iter().filter_map(|server| server.leads(now_ms)).collect();
            prop_assert!(leading.len() <= 1, "{leading:?} at {now_ms}");
            prop_assert!(leading.iter().all(|fence| *fence == rows.seen.generation_revision()));
            let number = rows.seen.generation.as_ref().map_or(0, |(_, generation)| generation.number);
            prop_assert!(number >= newest);
            newest = number;
        }
    }
}
