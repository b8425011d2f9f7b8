//! Single steps in words, and random histories of attempts against the properties that all must have.

use super::*;
use proptest::{collection::vec, option, prelude::*, sample::select};

const LIMITS: Limits = Limits {
    endpoints_max: 3,
    resends_max: 3,
    response_wait_ms_max: 1_000,
    kept_idle_ms_max: 300,
    kept_idle_unrepeatable_ms_max: 10,
    local_first: false,
};

fn endpoint(number: u8) -> Endpoint {
    let address = ([10, 0, 0, number], 80).into();
    Endpoint { container: ContainerId(format!("web-{number}")), port: 80, address, node: None }
}

fn begun(is_repeatable: bool) -> Attempts {
    Attempts::new(LIMITS, is_repeatable, Draw(7), 0)
}

fn ended(endpoint: &Endpoint, way: Way, outcome: Outcome) -> Ended<'_> {
    Ended { endpoint, has_alternative: true, way, outcome }
}

/// Endpoints, where they are, and how busy; all others are here and idle.
#[derive(Debug)]
struct Seen(Vec<(Endpoint, Distance, u32)>);

impl Sight for Seen {
    fn active(&self, endpoint: &Endpoint) -> u32 {
        self.0.iter().find(|seen| seen.0 == *endpoint).map_or(0, |seen| seen.2)
    }
    fn distance(&self, endpoint: &Endpoint) -> Distance {
        self.0.iter().find(|seen| seen.0 == *endpoint).map_or(Distance::Here, |seen| seen.1)
    }
}

#[test]
fn what_may_have_been_acted_on_is_repeated_only_where_twice_is_once() {
    let web = endpoint(1);
    for (is_repeatable, way, expected) in [
        (true, Way::Kept, Step::Try(())),
        (true, Way::Node, Step::Try(())),
        // It would break off again.
        (true, Way::Fresh, Step::GiveUp(Reason::Broken)),
        (false, Way::Kept, Step::GiveUp(Reason::Broken)),
        (false, Way::Node, Step::GiveUp(Reason::Broken)),
        (false, Way::Fresh, Step::GiveUp(Reason::Broken)),
    ] {
        let step = begun(is_repeatable).next(ended(&web, way, Outcome::Broken), Some(()), 1);
        assert_eq!(step, expected, "{is_repeatable} {way:?}");
    }
    for (method, has_body, expected) in [
        ("GET", false, true),
        ("PUT", false, true),
        ("PUT", true, false),
        ("POST", false, false),
        ("get", false, false),
    ] {
        assert_eq!(is_repeatable(method, has_body), expected, "{method} {has_body}");
    }
}

#[test]
fn what_nobody_has_taken_up_is_sent_again_if_it_is_whole() {
    let web = endpoint(1);
    for outcome in [Outcome::Unreached, Outcome::Untaken, Outcome::Declined] {
        for way in [Way::Fresh, Way::Kept, Way::Node] {
            assert_eq!(begun(false).next(ended(&web, way, outcome), Some("it"), 1), Step::Try("it"));
            let in_part = begun(false).next(ended(&web, way, outcome), None::<()>, 1);
            assert_eq!(in_part, Step::GiveUp(Reason::Unreachable { endpoints: 1 }), "{outcome:?} {way:?}");
        }
    }
}

#[test]
fn after_a_connection_was_closed_there_is_a_new_one_to_the_same_endpoint() {
    let all = [endpoint(1), endpoint(2), endpoint(3)];
    let nothing = Seen(Vec::new());
    for (is_repeatable, idle_ms) in [(true, 300), (false, 10)] {
        let mut attempts = begun(is_repeatable);
        assert_eq!(attempts.kept_idle_ms_max(), Some(idle_ms));
        let first = attempts.choose(&all, &nothing).expect("one is there").endpoint;
        assert_eq!(attempts.next(ended(first, Way::Kept, Outcome::Untaken), Some(()), 1), Step::Try(()));
        assert_eq!(attempts.kept_idle_ms_max(), None);
        assert_eq!(attempts.choose(&all, &nothing).map(|choice| choice.endpoint), Some(first));
        // Now it refuses connections.
        assert_eq!(attempts.next(ended(first, Way::Fresh, Outcome::Unreached), Some(()), 1), Step::Try(()));
        assert_ne!(attempts.choose(&all, &nothing).map(|choice| choice.endpoint), Some(first));
    }
}

#[test]
fn who_is_alone_on_a_node_is_tried_again_there() {
    let web = [endpoint(1)];
    let mut attempts = begun(true);
    for _ in 0..LIMITS.resends_max {
        let alone = Ended { has_alternative: false, ..ended(&web[0], Way::Node, Outcome::Broken) };
        assert_eq!(attempts.next(alone, Some(()), 1), Step::Try(()));
        assert_eq!(attempts.choose(&web, &Seen(Vec::new())).map(|choice| choice.has_alternative), Some(false));
    }
    let alone = Ended { has_alternative: false, ..ended(&web[0], Way::Node, Outcome::Broken) };
    assert_eq!(attempts.next(alone, Some(()), 1), Step::GiveUp(Reason::Broken));
}

#[test]
fn connections_that_end_rule_nobody_out() {
    let all = [endpoint(1), endpoint(2), endpoint(3)];
    let nothing = Seen(Vec::new());
    let mut attempts = begun(false);
    let first = attempts.choose(&all, &nothing).expect("one is there").endpoint;
    // As when all nodes replace their proxies at once.
    for _ in 0..LIMITS.resends_max {
        assert_eq!(attempts.next(ended(first, Way::Node, Outcome::Untaken), Some(()), 1), Step::Try(()));
        assert_eq!(attempts.choose(&all, &nothing).map(|choice| choice.endpoint), Some(first));
    }
    let given_up = Step::GiveUp(Reason::Unreachable { endpoints: 1 });
    assert_eq!(attempts.next(ended(first, Way::Node, Outcome::Untaken), Some(()), 1), given_up);
    // A refusal is another matter.
    let mut attempts = begun(false);
    assert_eq!(attempts.next(ended(first, Way::Node, Outcome::Declined), Some(()), 1), Step::Try(()));
    assert_ne!(attempts.choose(&all, &nothing).map(|choice| choice.endpoint), Some(first));
}

#[test]
fn when_none_is_left_the_last_failure_is_told() {
    let web = [endpoint(1)];
    let mut attempts = begun(false);
    assert_eq!(attempts.none_left(), None);
    assert_eq!(attempts.next(ended(&web[0], Way::Fresh, Outcome::Unreached), Some(()), 1), Step::Try(()));
    assert_eq!(attempts.choose(&web, &Seen(Vec::new())), None);
    assert_eq!(attempts.none_left(), Some(Reason::Unreachable { endpoints: 1 }));
}

#[test]
fn after_the_deadline_nothing_is_tried() {
    let web = endpoint(1);
    for (now_ms, expected) in [(999, Step::Try(())), (1_000, Step::GiveUp(Reason::Late))] {
        let step = begun(true).next(ended(&web, Way::Kept, Outcome::Broken), Some(()), now_ms);
        assert_eq!(step, expected, "after {now_ms} ms");
    }
    let mut endless = Attempts::new(Limits { response_wait_ms_max: u64::MAX, ..LIMITS }, true, Draw(0), 5);
    assert_eq!(endless.next(ended(&web, Way::Kept, Outcome::Broken), Some(()), 1 << 60), Step::Try(()));
}

/// One attempt of a history: what carried it, its outcome, whether the request can be recovered, how long it took.
type Told = (Way, Outcome, bool, u64);

fn told() -> impl Strategy<Value = Told> {
    let outcomes = select(vec![Outcome::Declined, Outcome::Broken, Outcome::Late, Outcome::Judged]);
    // Most failures are of the kind after which more attempts follow.
    let outcomes = prop_oneof![3 => select(vec![Outcome::Unreached, Outcome::Untaken]), 1 => outcomes];
    (select(vec![Way::Fresh, Way::Kept, Way::Node]), outcomes, prop::bool::weighted(0.9), 0..200_u64)
}

fn seen() -> impl Strategy<Value = Seen> {
    let distances = select(vec![Distance::Here, Distance::Reachable, Distance::Unreachable]);
    vec((distances, 0..4_u32), 1..7).prop_map(|all| {
        let numbered = all.into_iter().zip(0..);
        Seen(numbered.map(|((distance, active), number)| (endpoint(number), distance, active)).collect())
    })
}

proptest! {
    #[test]
    fn every_history_keeps_its_bounds(
        seen in seen(),
        history in vec(told(), 40),
        is_repeatable: bool,
        draw: u64,
        endpoints_max in 1..5_usize,
        resends_max in 0..4_usize,
        local_first: bool,
        begun_ms in 0..10_u64,
    ) {
        let limits = Limits { endpoints_max, resends_max, local_first, ..LIMITS };
        let all: Vec<Endpoint> = seen.0.iter().map(|(endpoint, ..)| endpoint.clone()).collect();
        let mut attempts = Attempts::new(limits, is_repeatable, Draw(draw), begun_ms);
        let (mut now_ms, mut over, mut tries) = (begun_ms, Vec::new(), 0);
        let reason = loop {
            let left = |distance: fn(Distance) -> bool| {
                seen.0.iter().any(|(endpoint, at, _)| distance(*at) && !over.contains(endpoint))
            };
            let Some(choice) = attempts.choose(&all, &seen) else {
                prop_assert!(!left(|_| true), "it ends though some are untried");
                break attempts.none_left();
            };
            tries += 1;
            // No endpoint that failed for good, and none further away than necessary.
            prop_assert!(!over.contains(choice.endpoint));
            let distance = seen.distance(choice.endpoint);
            prop_assert!(distance != Distance::Unreachable || !left(|at| at != Distance::Unreachable));
            prop_assert!(!local_first || distance == Distance::Here || !left(|at| at == Distance::Here));
            // It begins in time and must end in time.
            prop_assert!(now_ms < attempts.deadline_ms() && attempts.deadline_ms() == begun_ms + 1_000);
            let (way, outcome, is_whole, took_ms) = history[tries - 1];
            now_ms += took_ms;
            let ended = Ended { endpoint: choice.endpoint, has_alternative: choice.has_alternative, way, outcome };
            let is_elsewhere = way == Way::Node && choice.has_alternative;
            let is_over = outcome == Outcome::Unreached || (outcome != Outcome::Untaken && is_elsewhere);
            match attempts.next(ended, is_whole.then_some(tries), now_ms) {
                Step::GiveUp(reason) => break Some(reason),
                Step::Try(again) => {
                    prop_assert_eq!(again, tries, "the same request");
                    prop_assert!(is_whole);
                    prop_assert!(!matches!(outcome, Outcome::Late | Outcome::Judged));
                    prop_assert!(outcome != Outcome::Broken || (is_repeatable && way != Way::Fresh));
                }
            }
            if is_over {
                over.push(choice.endpoint.clone());
            }
        };
        prop_assert!(reason.is_some(), "whoever tried something can say why it failed");
        prop_assert!(over.len() < endpoints_max && tries <= endpoints_max + resends_max, "{tries} attempts");
    }

    #[test]
    fn an_alternative_is_another_that_was_not_tried_and_can_be_reached(seen in seen(), draw: u64, tried in option::of(0..7_usize)) {
        let all: Vec<Endpoint> = seen.0.iter().map(|(endpoint, ..)| endpoint.clone()).collect();
        let mut attempts = Attempts::new(LIMITS, false, Draw(draw), 0);
        if let Some(tried) = tried.and_then(|at| all.get(at)) {
            attempts.next(ended(tried, Way::Fresh, Outcome::Unreached), Some(()), 0);
        }
        let untried: Vec<&Endpoint> = all.iter().filter(|one| !attempts.tried.contains(&one.container)).collect();
        match attempts.choose(&all, &seen) {
            None => prop_assert!(untried.is_empty()),
            Some(choice) => {
                let others = untried.iter().filter(|other| **other != choice.endpoint);
                let reachable = others.filter(|other| seen.distance(other) != Distance::Unreachable);
                prop_assert_eq!(choice.has_alternative, reachable.count() > 0);
            }
        }
    }
}
