//! No certificate, however made or damaged, proves more than the optimum.

use heptad_certify::{
    CapacityPrices, Certificate, CertificateError, Class, Item, ItemPrices, LowerBound, Node, Problem, verify,
};
use proptest::prelude::*;

use crate::tiny::{amounts, optimum, problem};

fn price() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..64, 1 => any::<u64>()]
}

fn capacity_prices(problem: &Problem) -> impl Strategy<Value = CapacityPrices> + use<> {
    let node = (price(), price()).prop_map(|(a, b)| amounts(&[a, b]));
    let nodes = prop::collection::vec(node, problem.nodes.len());
    let groups = prop::collection::vec(price(), problem.groups.len());
    let staying = prop_oneof![Just(Vec::new()), prop::collection::vec(price(), problem.items.len())];
    (0_u32..5, nodes, price(), groups, staying).prop_map(|(scale_bits, node, moves, group_moves, staying)| {
        CapacityPrices { scale_bits, node, moves, group_moves, staying }
    })
}

fn item_prices(problem: &Problem) -> impl Strategy<Value = ItemPrices> + use<> {
    (0_u32..5, 0_usize..2, prop::collection::vec(price(), problem.classes.len()))
        .prop_map(|(scale_bits, dimension, class)| ItemPrices { scale_bits, dimension, class })
}

fn with_prices() -> impl Strategy<Value = (Problem, CapacityPrices, ItemPrices)> {
    problem().prop_flat_map(|problem| {
        let (capacity, items) = (capacity_prices(&problem), item_prices(&problem));
        (Just(problem), capacity, items)
    })
}

/// The checker may refuse to state a bound, but no bound may lie above the optimum.
fn is_sound(problem: &Problem, certificate: &Certificate, optimum: Option<i128>) -> bool {
    match (verify(problem, certificate), optimum) {
        (Ok(bound), Some(optimum)) => bound.cost() <= optimum,
        (Err(CertificateError::NoPlace { .. }), Some(_)) => false,
        _ => true,
    }
}

proptest! {
    #[test]
    fn no_prices_prove_too_much((problem, capacity, items) in with_prices()) {
        let optimum = optimum(&problem);
        let (capacity, items) = (Certificate::Capacity(capacity), Certificate::Items(items));
        prop_assert!(is_sound(&problem, &capacity, optimum), "{:?} {optimum:?}", verify(&problem, &capacity));
        prop_assert!(is_sound(&problem, &items, optimum), "{:?} {optimum:?}", verify(&problem, &items));
    }

    #[test]
    fn a_bound_rounds_up_to_a_whole_cost(numerator in -1_000_i128..1_000, scale_bits in 0_u32..6) {
        let cost = LowerBound { numerator, scale_bits }.cost();
        let scale = 1_i128 << scale_bits;
        prop_assert!(cost * scale >= numerator && (cost - 1) * scale < numerator);
    }
}

/// Items of the sizes given, nodes of one capacity that cost one each.
fn packing(capacity: u64, nodes: usize, sizes: &[u64]) -> Problem {
    Problem {
        dimensions: 1,
        nodes: vec![Node { capacity: amounts(&[capacity]), opening: 1 }; nodes],
        classes: sizes.iter().map(|size| Class { demand: amounts(&[*size]), ..Class::default() }).collect(),
        items: (0..sizes.len() as u32).map(|class| Item { class, ..Item::default() }).collect(),
        ..Problem::default()
    }
}

#[test]
fn the_volume_bound_is_a_special_case() {
    let problem = packing(10, 4, &[6, 6, 6]);
    // A price of 1/10 per unit: 18 units cost 1.8, so two nodes at least. 2^4 * 1/10 is rounded down to 1.
    let prices = |scale_bits, price| CapacityPrices {
        scale_bits,
        node: vec![amounts(&[price]); 4],
        ..CapacityPrices::default()
    };
    let bound = verify(&problem, &Certificate::Capacity(prices(20, (1 << 20) / 10))).unwrap();
    assert_eq!(bound.cost(), 2);
    assert!(bound.approximate() > 1.79 && bound.approximate() <= 1.8);
    // A price that is too high is not wrong; the four nodes merely earn too much.
    assert!(verify(&problem, &Certificate::Capacity(prices(0, 1))).unwrap().cost() <= 3);
}

#[test]
fn item_prices_see_that_two_large_items_share_no_node() {
    let problem = packing(10, 4, &[6, 6, 6]);
    let prices = ItemPrices { scale_bits: 0, dimension: 0, class: vec![1; 3] };
    assert_eq!(verify(&problem, &Certificate::Items(prices)).unwrap().cost(), 3);
}

#[test]
fn who_stays_keeps_the_node_open() {
    let mut problem = packing(10, 2, &[5, 5]);
    problem.nodes.iter_mut().for_each(|node| node.opening = 100);
    (0..2).for_each(|at| {
        problem.items[at].current = Some(at as u32);
        problem.items[at].move_price = 7;
    });
    // One node and one move are needed: 107. A node of 93 for its room, and 7 for each item that stays.
    let prices = |staying| CapacityPrices {
        scale_bits: 10,
        node: vec![amounts(&[(93 << 10) / 10]); 2],
        staying,
        ..CapacityPrices::default()
    };
    let bound = |staying| verify(&problem, &Certificate::Capacity(prices(staying))).unwrap().cost();
    assert_eq!(bound(vec![7 << 10; 2]), 107);
    assert_eq!(bound(Vec::new()), 93);
    let short = Certificate::Capacity(prices(vec![1]));
    assert!(matches!(verify(&problem, &short), Err(CertificateError::Length { expected: 2, found: 1, .. })));
}

#[test]
fn what_does_not_belong_is_refused() {
    let problem = packing(10, 2, &[6]);
    let refused = |certificate| verify(&problem, &certificate).unwrap_err();
    let short = CapacityPrices { node: vec![amounts(&[1])], ..CapacityPrices::default() };
    assert!(matches!(refused(Certificate::Capacity(short)), CertificateError::Length { expected: 2, found: 1, .. }));
    let scale = CapacityPrices { scale_bits: 63, node: vec![amounts(&[1]); 2], ..CapacityPrices::default() };
    assert_eq!(refused(Certificate::Capacity(scale)), CertificateError::Scale { bits: 63 });
    let dimension = ItemPrices { scale_bits: 0, dimension: 1, class: vec![1] };
    assert_eq!(refused(Certificate::Items(dimension)), CertificateError::Dimension { dimension: 1 });
}

#[test]
fn what_cannot_be_added_exactly_is_an_error() {
    let mut problem = packing(1 << 60, 2, &[1 << 60]);
    problem.items = vec![Item::default(); 20];
    let node = vec![amounts(&[u64::MAX]); 2];
    let prices = CapacityPrices { scale_bits: 0, node, ..CapacityPrices::default() };
    assert_eq!(verify(&problem, &Certificate::Capacity(prices)), Err(CertificateError::Overflow));
}
