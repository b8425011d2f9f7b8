//! The ids of the promises, their titles and their kinds of evidence, as in GUARANTEES.md; which of them are predicates
//! over a snapshot. Knows no proof and no test, only their kinds.

use crate::{
    Snapshot,
    invariants::{Finding, capacity, orchestration, well_formed},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The id of a guarantee, as in GUARANTEES.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Guarantee {
    /// Well-formed system.
    G1,
    /// Containers are what their service says.
    G2,
    /// Every request gets one verdict.
    G3,
    /// Capacity is never exceeded.
    G4,
    /// Certified optimality.
    G5,
    /// Discovery converges within a bound.
    G6,
    /// Utilisation of any-fit.
    G7,
    /// Cost of a lookup.
    G8,
    /// Durability of objects.
    G9,
    /// Linearizable objects.
    G10,
    /// Integrity of what is read.
    G11,
    /// No acknowledged API write is lost.
    G12,
    /// Containers outlive the platform's processes.
    G13,
    /// Default deny.
    G14,
    /// Same inputs, same plan.
    G15,
    /// What must never run twice does not.
    G16,
}

impl Guarantee {
    /// All guarantees.
    pub const ALL: [Self; 16] = [
        Self::G1,
        Self::G2,
        Self::G3,
        Self::G4,
        Self::G5,
        Self::G6,
        Self::G7,
        Self::G8,
        Self::G9,
        Self::G10,
        Self::G11,
        Self::G12,
        Self::G13,
        Self::G14,
        Self::G15,
        Self::G16,
    ];

    /// The guarantees that are predicates over a snapshot, which hold or fail at every moment.
    pub const PREDICATES: [Self; 3] = [Self::G1, Self::G2, Self::G4];

    /// A short title.
    pub fn title(self) -> &'static str {
        match self {
            Self::G1 => "well-formed system",
            Self::G2 => "containers are what their service says",
            Self::G3 => "every request gets one verdict",
            Self::G4 => "capacity is never exceeded",
            Self::G5 => "certified optimality",
            Self::G6 => "discovery converges within a bound",
            Self::G7 => "utilisation of any-fit",
            Self::G8 => "cost of a lookup",
            Self::G9 => "durability of objects",
            Self::G10 => "linearizable objects",
            Self::G11 => "integrity of what is read",
            Self::G12 => "no acknowledged API write is lost",
            Self::G13 => "containers outlive the platform's processes",
            Self::G14 => "default deny",
            Self::G15 => "same inputs, same plan",
            Self::G16 => "what must never run twice does not",
        }
    }

    /// The evidence, in the words of its row in GUARANTEES.md.
    pub fn status(self) -> &'static str {
        STATUSES[self as usize]
    }

    /// All places in `snapshot` where the guarantee does not hold; empty if it is not a predicate over a snapshot.
    pub fn findings(self, snapshot: &Snapshot) -> Vec<Finding> {
        let texts = match self {
            Self::G1 => well_formed(snapshot),
            Self::G2 => orchestration(snapshot),
            Self::G4 => capacity(snapshot),
            _ => Vec::new(),
        };
        texts.into_iter().map(|(subject, message)| Finding { guarantee: self, subject, message }).collect()
    }
}

/// In the order of [`Guarantee::ALL`].
const STATUSES: [&str; 16] = [
    "checked at run time, simulated, tested",
    "checked at run time, property-tested, simulated",
    "property-tested",
    "proved (model), checked at run time, property-tested, simulated",
    "proved (model), property-tested, checked at run time",
    "tested on one machine; model and bound pending",
    "proved (model), property-tested, checked at run time",
    "proved (model), tested",
    "property-tested, kill-tested",
    "history-checked",
    "property-tested, checked at run time",
    "property-tested, kill-tested, simulated, history-checked",
    "tested",
    "property-tested, tested",
    "proved (model), property-tested",
    "property-tested, tested",
];

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program says the same about a promise as the document.
    #[test]
    fn the_document_says_the_same() {
        let document = include_str!("../../../../GUARANTEES.md");
        let rows: Vec<Vec<&str>> = document
            .lines()
            .filter(|line| line.starts_with("| [G"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        assert_eq!(rows.len(), Guarantee::ALL.len());
        for (guarantee, row) in Guarantee::ALL.into_iter().zip(rows) {
            assert!(row[1].starts_with(&format!("[{guarantee}]")), "{row:?}");
            assert_eq!(row[3], guarantee.status(), "{guarantee}");
            assert!(document.contains(&format!("## {guarantee} ")), "{guarantee} has a section");
        }
    }
}
