//! The facts on which a request is decided: who calls, what is addressed, and what HTTP says, if it is HTTP. Does not
//! know how these were found out.

use heptad_model::ServiceKey;
use std::{borrow::Cow, fmt};

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caller {
    /// A container of that service.
    Service(ServiceKey),
    /// Anyone outside the mesh, and everyone who could not be identified.
    External,
    /// The operator of the platform, through its API. Policies do not bind the operator, who may change them anyway.
    Operator,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => key.fmt(f),
            Self::External => f.pad("external"),
            Self::Operator => f.pad("operator"),
        }
    }
}

/// The headers of a request.
pub trait Headers {
    /// The value of the header of that lower-case name; several lines are joined by `, ` (RFC 9110, 5.3).
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// A request without headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// Lower-case names and values; of equal names, the first wins.
impl Headers for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(key, _)| key == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }
}

/// The HTTP fields of a request.
#[derive(Clone, Copy)]
pub struct HttpFacts<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it was sent, without the query; conditions see its normal form.
    pub path: &'a str,
    /// The query as it was sent, without the `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a dyn Headers,
}

impl fmt::Debug for HttpFacts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFacts")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

/// Everything that determines a verdict, besides the table and the draw.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// The service that is addressed.
    pub target: &'a ServiceKey,
    /// The port that is addressed.
    pub port: u16,
    /// The HTTP fields; absent for anything else, in which case every field of a condition is absent.
    pub http: Option<HttpFacts<'a>>,
}

/// One uniformly random number from which every choice for one request is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(pub u64);

impl Draw {
    /// A number below `bound` (0 if that is 0); each `stream` gives an independent one.
    pub(crate) fn below(self, stream: u64, bound: u64) -> u64 {
        let product = u128::from(mix(self.0 ^ mix(stream))) * u128::from(bound);
        (product >> 64) as u64
    }
}

/// The finaliser of SplitMix64: a bijection whose outputs look independent for related inputs.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
