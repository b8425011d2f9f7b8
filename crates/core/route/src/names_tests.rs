//! G8: names are found, and the steps of lookups over 10^2 to 10^6 names are counted, not timed.

use super::*;
use crate::{
    Draw,
    balance::{Balancer, choose},
};
use heptad_model::Endpoint;
use proptest::prelude::*;
use std::{
    cell::Cell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];

fn name(number: usize) -> String {
    format!("service-{number:07}")
}

#[test]
fn an_exact_name_takes_two_reads_and_one_comparison_whatever_their_number() {
    for size in SIZES {
        let texts: Vec<String> = (0..size).map(name).collect();
        let all: Vec<Parts<'_>> = texts.iter().map(|text| ["default", text.as_str()]).collect();
        let names = Names::new(&all);
        // By construction the two levels are read once each; what remains to be counted is comparisons.
        let Names::Levels(levels) = &names else { panic!("{size} names make no table") };
        assert!(levels.places.len() <= PLACES_PER_NAME_MAX * size.next_power_of_two());
        let compared = Cell::new(0);
        let name_at = |position: usize| {
            compared.set(compared.get() + 1);
            all[position]
        };
        for position in (0..size).step_by(size / 100) {
            compared.set(0);
            assert_eq!(names.find(all[position], name_at), Some(position));
            assert_eq!(compared.get(), 1);
            compared.set(0);
            assert_eq!(names.find(["other", &texts[position]], name_at), None);
            assert!(compared.get() <= 1);
        }
    }
}

/// A key that counts how often it is compared.
struct Counted<'a> {
    name: &'a str,
    compared: &'a Cell<u32>,
}

impl Ord for Counted<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compared.set(self.compared.get() + 1);
        self.name.cmp(other.name)
    }
}

impl PartialOrd for Counted<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Counted<'_> {}

/// `ordered_map_steps` of `spec/G8_lookup.v` for this many names.
fn steps_max(size: usize) -> u32 {
    11 * ((size + 1).ilog2() / 2 + 1)
}

#[test]
#[expect(clippy::mutable_key_type, reason = "the counter is no part of the order")]
fn an_ordered_map_takes_steps_as_the_logarithm() {
    for size in SIZES {
        let (compared, texts) = (Cell::new(0), (0..size).map(name).collect::<Vec<String>>());
        let key = |name| Counted { name, compared: &compared };
        let map: BTreeMap<Counted<'_>, usize> =
            texts.iter().enumerate().map(|(i, name)| (key(name.as_str()), i)).collect();
        for position in (0..size).step_by(size / 100) {
            compared.set(0);
            assert_eq!(map.get(&key(&texts[position])), Some(&position));
            assert!(compared.get() <= steps_max(size), "{} of {size}", compared.get());
            // All names with a prefix: the steps to the first of them, and one step per answer plus one.
            let prefix = &texts[position][..texts[position].len() - 1];
            compared.set(0);
            let range = map.range(key(prefix)..);
            let to_the_first = compared.get();
            let found = range.take_while(|(found, _)| found.name.starts_with(prefix)).count();
            assert_eq!(found, 10);
            assert!(to_the_first <= 2 * steps_max(size), "{to_the_first} of {size}");
            assert_eq!(compared.get(), to_the_first, "going on compares nothing");
        }
    }
}

/// Counts the endpoints that a choice looks at.
struct Counting(Cell<u32>);

impl Balancer for Counting {
    fn active(&self, _: &Endpoint) -> u32 {
        self.0.set(self.0.get() + 1);
        0
    }

    fn excluded(&self, _: &Endpoint) -> bool {
        self.0.set(self.0.get() + 1);
        false
    }
}

#[test]
fn an_endpoint_is_chosen_by_looking_at_two() {
    let endpoint = |number: usize| Endpoint {
        container: name(number).as_str().into(),
        port: 80,
        address: SocketAddr::from(([10, 0, 0, 1], 80)),
        node: None,
    };
    let all: Vec<Endpoint> = (0..SIZES[4]).map(endpoint).collect();
    for size in SIZES {
        for draw in 0..100 {
            let counting = Counting(Cell::new(0));
            assert!(choose(&all[..size], Draw(draw), &counting).is_some());
            assert_eq!(counting.0.get(), 4, "two endpoints, each asked twice");
        }
    }
}

#[test]
fn what_has_no_key_is_searched_in_its_order() {
    let texts: Vec<String> = (0..1_000).map(|number| name((number * 7_919) % 1_000)).collect();
    let all: Vec<Parts<'_>> = texts.iter().map(|text| ["default", text.as_str()]).collect();
    let names = Names::ordered(&all);
    for (position, name) in all.iter().enumerate() {
        assert_eq!(names.find(*name, |at| all[at]), Some(position));
    }
    assert_eq!(names.find(["default", "none"], |at| all[at]), None);
    // Two equal names can never be separated.
    assert!(matches!(Names::new(&[["a", "b"], ["a", "b"]]), Names::Ordered(_)));
}

proptest! {
    #[test]
    fn every_name_is_found_and_no_other(all in prop::collection::btree_set(("[a-c]{0,3}", "[a-z.-]{0,12}"), 0..200), other in ("[a-c]{0,3}", "[a-z.-]{0,12}")) {
        let all: BTreeSet<(String, String)> = all;
        let parts: Vec<Parts<'_>> = all.iter().map(|(a, b)| [a.as_str(), b.as_str()]).collect();
        let names = Names::new(&parts);
        for (position, name) in parts.iter().enumerate() {
            prop_assert_eq!(names.find(*name, |at| parts[at]), Some(position));
        }
        let found = names.find([&other.0, &other.1], |at| parts[at]);
        prop_assert_eq!(found.map(|at| parts[at]), all.get(&other).map(|(a, b)| [a.as_str(), b.as_str()]));
    }
}
