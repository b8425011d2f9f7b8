//! Explains the decision on a request: which policies select and allow, which rules hold and which condition fails,
//! what each backend would get. Uses the decision's own functions; decides nothing itself.

use crate::{
    decide::{port_of, sides, why_none},
    facts::{Caller, Facts},
    policy::Direction,
    table::{Entry, Table},
    verdict::{NoEndpoint, Why},
};
use heptad_model::{Condition, ServiceKey};
use std::fmt;

/// The answer of one side's policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyCheck {
    /// Whose policies were asked.
    pub of: ServiceKey,
    /// In which direction.
    pub direction: Direction,
    /// The policies that restrict it; if there are none, the side is open.
    pub selected_by: Vec<String>,
    /// Those of them that allow the call.
    pub allowed_by: Vec<String>,
}

impl PolicyCheck {
    /// Whether this side allows the call.
    pub fn is_allowed(&self) -> bool {
        self.selected_by.is_empty() || !self.allowed_by.is_empty()
    }
}

/// A traffic rule of the addressed service, in order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    /// The name.
    pub name: String,
    /// The first condition that fails; `None` if all hold.
    pub fails: Option<Condition>,
}

/// A service that may get the request.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendShare {
    /// The service.
    pub service: ServiceKey,
    /// The container port there.
    pub port: u16,
    /// The probability, from 0 to 1.
    pub share: f64,
    /// What the policies say about it.
    pub checks: Vec<PolicyCheck>,
    /// How many endpoints are ready.
    pub endpoints_ready: usize,
    /// Why there is none, in words; empty if there is one.
    pub missing: String,
}

impl BackendShare {
    /// Whether requests that fall on it are served.
    pub fn is_served(&self) -> bool {
        self.endpoints_ready > 0 && self.checks.iter().all(PolicyCheck::is_allowed)
    }
}

/// The explanation of a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Who calls.
    pub caller: Caller,
    /// The service that is addressed.
    pub target: ServiceKey,
    /// The port.
    pub port: u16,
    /// Whether the addressed service exists.
    pub exists: bool,
    /// What the policies say about the addressed service.
    pub checks: Vec<PolicyCheck>,
    /// The rules that were tried, up to and including the first that holds.
    pub rules: Vec<RuleTrace>,
    /// Where the request would go; empty if it is denied earlier.
    pub backends: Vec<BackendShare>,
}

impl Explanation {
    /// Whether policies allow the call on the addressed service and on every backend that can be chosen.
    pub fn is_allowed(&self) -> bool {
        let backends = self.backends.iter().filter(|b| b.share > 0.0).flat_map(|b| &b.checks);
        self.exists && self.checks.iter().chain(backends).all(PolicyCheck::is_allowed)
    }
}

/// The explanation for a request with these facts.
pub fn explain(table: &Table, facts: &Facts<'_>) -> Explanation {
    let mut explanation = Explanation {
        caller: facts.caller.clone(),
        target: facts.target.clone(),
        port: facts.port,
        exists: false,
        checks: Vec::new(),
        rules: Vec::new(),
        backends: Vec::new(),
    };
    let Some((index, addressed)) = table.entry(facts.target) else { return explanation };
    explanation.exists = true;
    explanation.checks = checks(table, facts.caller, addressed, facts.port);
    if explanation.is_allowed() {
        trace(table, facts, (index, addressed), &mut explanation);
    }
    explanation
}

fn checks(table: &Table, caller: &Caller, target: &Entry, port: u16) -> Vec<PolicyCheck> {
    let check = |side: crate::decide::Side<'_>| PolicyCheck {
        of: side.of().clone(),
        direction: side.direction,
        selected_by: side.selecting(table).map(|policy| policy.name.clone()).collect(),
        allowed_by: side.selecting(table).filter(|p| side.lists(p, port)).map(|p| p.name.clone()).collect(),
    };
    sides(table, caller, target).into_iter().flatten().map(check).collect()
}

fn trace(table: &Table, facts: &Facts<'_>, (index, addressed): (usize, &Entry), into: &mut Explanation) {
    for rule in &addressed.rules {
        let fails = rule.conditions.iter().find(|condition| !condition.holds(facts.http.as_ref()));
        into.rules.push(RuleTrace { name: rule.name.clone(), fails: fails.map(|c| c.source.clone()) });
        if fails.is_none() {
            let share = |backend: &crate::rule::Backend| {
                share_of(table, facts, backend.index.ok_or(&backend.key), rule.share(backend))
            };
            into.backends = rule.backends.iter().map(share).collect();
            return;
        }
    }
    let mut own = share_of(table, facts, Ok(index), 1.0);
    if own.port != facts.port {
        // Only backends of rules may answer on another port than the addressed one.
        own.missing = no_endpoint(&addressed.key, facts.port, why_none(addressed, facts.port));
        (own.port, own.endpoints_ready) = (facts.port, 0);
    }
    into.backends.push(own);
}

fn share_of(table: &Table, facts: &Facts<'_>, index: Result<usize, &ServiceKey>, share: f64) -> BackendShare {
    let index = match index {
        Ok(index) => index,
        Err(key) => {
            let missing = no_endpoint(key, facts.port, Why::BackendMissing);
            let (service, port) = (key.clone(), facts.port);
            return BackendShare { service, port, share, checks: Vec::new(), endpoints_ready: 0, missing };
        }
    };
    let entry = table.entry_at(index);
    let port = port_of(entry, facts.port);
    let endpoints_ready = table.endpoints_at(index, port).len();
    let missing = match endpoints_ready {
        0 => no_endpoint(&entry.key, port, why_none(entry, port)),
        _ => String::new(),
    };
    let checks = checks(table, facts.caller, entry, port);
    BackendShare { service: entry.key.clone(), port, share, checks, endpoints_ready, missing }
}

fn no_endpoint(service: &ServiceKey, port: u16, why: Why<'_>) -> String {
    NoEndpoint { service, port, rule: None, why }.to_string()
}

impl fmt::Display for PolicyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, direction, selected_by, allowed_by } = self;
        match (selected_by.is_empty(), allowed_by.is_empty()) {
            (true, _) => write!(f, "{direction} of {of}: open, no policy selects it"),
            (false, false) => write!(f, "{direction} of {of}: allowed by {}", allowed_by.join(", ")),
            (false, true) => write!(f, "{direction} of {of}: denied, selected by {}", selected_by.join(", ")),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, target, port, .. } = self;
        if !self.exists {
            return write!(f, "there is no service {target}");
        }
        let word = if self.is_allowed() { "may" } else { "may not" };
        write!(f, "{caller} {word} call {target} on port {port}")?;
        self.checks.iter().try_for_each(|check| write!(f, "\n  {check}"))?;
        for rule in &self.rules {
            match &rule.fails {
                None => write!(f, "\n  rule {}: holds", rule.name)?,
                Some(c) => write!(f, "\n  rule {}: fails on {} {:?} `{}`", rule.name, c.field, c.operator, c.value)?,
            }
        }
        for backend in &self.backends {
            let BackendShare { service, port, share, endpoints_ready, missing, .. } = backend;
            write!(f, "\n  {:.1} % to {service} on port {port}, {endpoints_ready} ready", share * 100.0)?;
            if !missing.is_empty() {
                write!(f, " ({missing})")?;
            }
            if service != target {
                backend.checks.iter().try_for_each(|check| write!(f, "\n    {check}"))?;
            }
        }
        Ok(())
    }
}
