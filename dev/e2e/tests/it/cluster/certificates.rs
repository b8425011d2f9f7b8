//! Certificates that end soon are renewed, and the authority is replaced, while requests come.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault};
use std::time::Duration;

/// A certificate lives for 24 s here, and a new authority signs after 12 s.
const LIFETIMES: Duration = Duration::from_secs(38);

#[test]
fn renewal_and_rotation_lose_no_request() {
    let mut options = ClusterOptions::small(2);
    options.server_environment = vec![("HEPTAD_CERTIFICATE_TTL_MS".to_owned(), "24000".to_owned())];
    let mut cluster = Cluster::start(&options);
    cluster.start_callers();
    cluster.apply(&stock(2, ""));
    let loads = cluster.call_always(&[0, 1], "stock", REST);
    let mut fault = Fault::begin("all certificates are renewed, the authority is rotated");
    cluster.ok(&["ca", "rotate"]);
    std::thread::sleep(LIFETIMES);
    cluster.apply(&stock(3, ""));
    fault.recovered();
    for agent in &mut cluster.agents {
        let said = agent.running().log_text();
        assert!(said.matches("the certificate was renewed").count() >= 2 && said.contains("other roots are trusted"));
    }
    assert_none_lost(&mut fault, "calls across nodes while certificates change", loads);
    fault.report();
    cluster.assert_verified();
}
