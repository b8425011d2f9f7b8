//! Certificates that end soon are renewed, and the authority is replaced, while requests come.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault};
use std::time::Duration;

/// Longer than a certificate lives here.
const LIFETIMES: Duration = Duration::from_secs(25);

#[test]
fn renewal_and_rotation_lose_no_request() {
    let mut options = ClusterOptions::small(2);
    options.init_args = ["--certificate-ttl", "20s"].map(str::to_owned).into();
    let cluster = Cluster::start(&options);
    cluster.start_callers();
    cluster.apply(&stock(2, ""));
    let loads = cluster.call_always(&[0, 1], "stock", REST);
    let mut fault = Fault::begin("all certificates are renewed, the authority is rotated");
    cluster.ok(&["ca", "rotate"]);
    std::thread::sleep(LIFETIMES);
    cluster.apply(&stock(3, ""));
    fault.recovered();
    assert_none_lost(&mut fault, "calls across nodes while certificates change", loads);
    fault.report();
    cluster.assert_verified();
}
