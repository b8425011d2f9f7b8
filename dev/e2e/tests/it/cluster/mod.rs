//! Clusters of many machines: joined as people join them, then damaged. Each test reports what its fault did
//! (`fault-report` lines; `HEPTAD_FAULT_REPORT=FILE` collects them).

mod away;
mod certificates;
mod changes;
mod join;
mod lost;
mod pressure;
mod removal;
mod servers;
mod state;

use heptad_e2e::{Fault, Load};
use std::time::Duration;

/// What is promised when a node is lost: known, and its replicas ready elsewhere.
const NOTICED: Duration = Duration::from_secs(10);
const REPLACED: Duration = Duration::from_secs(15);
/// Between two requests of one caller.
const REST: Duration = Duration::from_millis(10);

/// A service of the example shop, called by others.
fn stock(replicas: u8, more: &str) -> String {
    crate::stock("stock", &format!("replicas: {replicas}\nstop_grace_ms: 1000\n{more}"))
        .replace("cpu: 50m", "cpu: 100m")
}

/// Ends the loads, and fails if one request of them failed.
fn assert_none_lost(fault: &mut Fault, what: &str, loads: Vec<Load>) {
    for load in loads {
        let tally = load.end();
        fault.requests(&tally);
        tally.assert_none_lost(what);
    }
}
