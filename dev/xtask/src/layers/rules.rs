//! The allowed arrows as data: for every crate its shelf, what it may know, and what its tests may know besides.

use std::{fmt, path::Path};

/// A directory of crates with one purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    Core,
    Io,
    Svc,
    Heptad,
    Dev,
    Unknown,
}

impl Shelf {
    /// The shelf of a crate in `dir`, which is relative to the root.
    pub(super) fn of(dir: &Path) -> Self {
        let parts: Vec<_> = dir.iter().map(|part| part.to_string_lossy()).collect();
        match parts.iter().map(|part| &**part).collect::<Vec<_>>()[..] {
            ["crates", "core", _] => Self::Core,
            ["crates", "io", _] => Self::Io,
            ["crates", "svc", _] => Self::Svc,
            ["crates", "heptad"] => Self::Heptad,
            ["dev", _] => Self::Dev,
            _ => Self::Unknown,
        }
    }

    /// What the shelf is for, as the reason of a refusal.
    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::Core => "core crates decide from values alone",
            Self::Io => "io crates touch one outside thing each",
            Self::Svc => "a service crate runs its own loops and meets the others in the binary",
            Self::Heptad => "the binary composes",
            Self::Dev => "dev crates are tools",
            Self::Unknown => "it lies on no shelf",
        }
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Core => "core",
            Self::Io => "io",
            Self::Svc => "svc",
            Self::Heptad => "heptad",
            Self::Dev => "dev",
            Self::Unknown => "unknown",
        })
    }
}

/// What one crate may know.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) shelf: Shelf,
    /// Crates of the workspace that it may use.
    pub(super) may_use: &'static [&'static str],
    /// Crates of the workspace that only its tests may use.
    pub(super) tests_may_use: &'static [&'static str],
}

const fn rule(name: &'static str, shelf: Shelf, may_use: &'static [&'static str]) -> Rule {
    Rule { name, shelf, may_use, tests_may_use: &[] }
}

impl Rule {
    const fn tests(self, tests_may_use: &'static [&'static str]) -> Self {
        Self { tests_may_use, ..self }
    }
}

const MODEL: &[&str] = &["heptad-model"];

/// The binary and the tools may use any crate and are not listed.
pub(super) const RULES: &[Rule] = &[
    rule("heptad-model", Shelf::Core, &[]),
    rule("heptad-api", Shelf::Core, MODEL),
    rule("heptad-manifest", Shelf::Core, &["heptad-api", "heptad-model"])
        // What is written is tested against a server with its store.
        .tests(&["heptad-control", "heptad-pki", "heptad-state"]),
    rule("heptad-capacity", Shelf::Core, MODEL),
    // It judges plans, so it knows no planner; its tests are given real plans.
    rule("heptad-check", Shelf::Core, &["heptad-capacity", "heptad-model"]).tests(&["heptad-sched"]),
    rule("heptad-sched", Shelf::Core, &["heptad-capacity", "heptad-certify", "heptad-model"]).tests(&["heptad-check"]),
    rule("heptad-life", Shelf::Core, &["heptad-capacity", "heptad-sched", "heptad-model"]).tests(&["heptad-check"]),
    rule("heptad-route", Shelf::Core, MODEL),
    rule("heptad-shard", Shelf::Core, MODEL),
    // It judges solvers, so it knows none.
    rule("heptad-certify", Shelf::Core, &[]),
    rule("heptad-optimize", Shelf::Core, &["heptad-certify"]),
    rule("heptad-state", Shelf::Io, MODEL),
    rule("heptad-exec", Shelf::Io, MODEL),
    rule("heptad-image", Shelf::Io, MODEL),
    rule("heptad-net", Shelf::Io, MODEL),
    rule("heptad-blob", Shelf::Io, MODEL),
    rule("heptad-pki", Shelf::Io, MODEL),
    rule(
        "heptad-control",
        Shelf::Svc,
        &[
            "heptad-state",
            "heptad-capacity",
            "heptad-check",
            "heptad-sched",
            "heptad-life",
            "heptad-certify",
            "heptad-optimize",
            "heptad-route",
            "heptad-shard",
            "heptad-api",
            "heptad-pki",
            "heptad-model",
        ],
    )
    // Its API is tested with the client that everybody uses.
    .tests(&["heptad-client"]),
    rule(
        "heptad-agent",
        Shelf::Svc,
        &[
            "heptad-life",
            "heptad-api",
            "heptad-exec",
            "heptad-image",
            "heptad-net",
            "heptad-pki",
            "heptad-client",
            "heptad-model",
        ],
    )
    // It is tested under the real control plane.
    .tests(&["heptad-control", "heptad-state"]),
    rule("heptad-proxy", Shelf::Svc, &["heptad-route", "heptad-api", "heptad-pki", "heptad-client", "heptad-model"]),
    rule(
        "heptad-store",
        Shelf::Svc,
        &["heptad-shard", "heptad-blob", "heptad-state", "heptad-api", "heptad-pki", "heptad-model"],
    ),
    rule("heptad-member", Shelf::Svc, &["heptad-pki", "heptad-state", "heptad-api", "heptad-client", "heptad-model"])
        // Joins are tested against the real control plane.
        .tests(&["heptad-control"]),
    rule(
        "heptad-cli",
        Shelf::Svc,
        // A person logs in over the connections with which members reach servers.
        &["heptad-api", "heptad-client", "heptad-manifest", "heptad-member", "heptad-pki", "heptad-model"],
    ),
    rule("heptad-client", Shelf::Svc, &["heptad-api", "heptad-model"]),
];

/// What no core crate may reach by normal dependencies, and why.
pub(super) const CORE_FORBIDDEN: &[(&str, &str)] = &[
    ("tokio", "core crates run nothing"),
    ("async-std", "core crates run nothing"),
    ("smol", "core crates run nothing"),
    ("mio", "core crates know no sockets"),
    ("socket2", "core crates know no sockets"),
    ("hyper", "core crates know no sockets"),
    ("axum", "core crates know no sockets"),
    ("reqwest", "core crates know no sockets"),
    ("rustls", "core crates know no sockets"),
    ("fjall", "core crates know no files"),
    ("tempfile", "core crates know no files"),
    ("nix", "core crates know no operating system"),
    ("rustix", "core crates know no operating system"),
    ("rand", "randomness is an argument"),
    ("getrandom", "randomness is an argument"),
    ("uuid", "identifiers are drawn by the caller"),
    ("chrono", "time is an argument"),
    ("jiff", "time is an argument"),
    ("time", "time is an argument"),
    ("web-time", "time is an argument"),
];

/// Arrows between libraries behind which a core crate reaches nothing, and the decision that says why.
pub(super) const CORE_EXCEPTIONS: &[(&str, &str)] = &[
    // ADR 12: the clock is read and decides nothing.
    ("microlp", "web-time"),
];
