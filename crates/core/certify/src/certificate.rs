//! Certificates, as prices in scaled integers, and the bound that they prove. Knows nothing of where prices come from.

use crate::{Amounts, CertificateError, Problem, bound};

/// The most bits that a scale may have.
pub const SCALE_BITS_MAX: u32 = 62;

/// Dual values. Any values prove a bound; good ones prove a high bound. A price of `p` means `p / 2^scale_bits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Capacities and move budgets are priced (Lagrangian relaxation of the capacity rows).
    Capacity(CapacityPrices),
    /// Items are priced, and no node can earn more than its knapsack (the dual of column generation).
    Items(ItemPrices),
}

/// What a unit of each node's resources, and a move, is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapacityPrices {
    /// The scale of all prices.
    pub scale_bits: u32,
    /// By node and resource.
    pub node: Vec<Amounts>,
    /// For a move under the overall budget; ignored if there is no such budget.
    pub moves: u64,
    /// For a move under the budget of its group, by group.
    pub group_moves: Vec<u64>,
    /// For an item that stays where it is, by item; empty: nothing. It is the price of the row "an item that stays
    /// keeps its node open": the item pays it if it stays, and its present node earns it if that node is open.
    pub staying: Vec<u64>,
}

/// What an item of each class is worth; one resource counts, the others are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemPrices {
    /// The scale of all prices.
    pub scale_bits: u32,
    /// The resource that limits a node.
    pub dimension: usize,
    /// By class.
    pub class: Vec<u64>,
}

/// A proven bound, `numerator / 2^scale_bits`: no solution costs less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LowerBound {
    /// The bound times the scale.
    pub numerator: i128,
    /// The scale.
    pub scale_bits: u32,
}

impl LowerBound {
    /// The least whole cost that is not below the bound. All costs are whole numbers, so this is a bound too.
    #[must_use]
    pub fn cost(&self) -> i128 {
        let floor = self.numerator >> self.scale_bits;
        if floor << self.scale_bits == self.numerator { floor } else { floor + 1 }
    }

    /// The bound as a number to print. Nothing is decided by it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "it is for people")]
    pub fn approximate(&self) -> f64 {
        self.numerator as f64 / (1_u128 << self.scale_bits) as f64
    }
}

/// Computes the bound that the prices prove, exactly.
///
/// # Errors
/// The certificate does not belong to the problem, or numbers exceed exact arithmetic. No price proves too much.
pub fn verify(problem: &Problem, certificate: &Certificate) -> Result<LowerBound, CertificateError> {
    problem.check().map_err(CertificateError::Problem)?;
    let scale_bits = match certificate {
        Certificate::Capacity(prices) => prices.scale_bits,
        Certificate::Items(prices) => prices.scale_bits,
    };
    if scale_bits > SCALE_BITS_MAX {
        return Err(CertificateError::Scale { bits: scale_bits });
    }
    let numerator = match certificate {
        Certificate::Capacity(prices) => bound::from_capacity_prices(problem, prices)?,
        Certificate::Items(prices) => bound::from_item_prices(problem, prices)?,
    };
    Ok(LowerBound { numerator, scale_bits })
}
