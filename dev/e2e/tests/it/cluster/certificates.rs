//! Certificates that end soon are renewed, and the CA is replaced, while requests arrive.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, time_until};
use heptad_model::NodeStatus;
use std::time::Duration;

/// A certificate lives for 24 s here, and a new CA signs after 12 s.
const LIFETIMES: Duration = Duration::from_secs(38);
/// Longer than any certificate that was issued before.
const OUTAGE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(60);

fn short_lived(agents: u8) -> Cluster {
    let mut options = ClusterOptions::small(agents);
    options.server_environment = vec![("HEPTAD_CERTIFICATE_TTL_MS".to_owned(), "24000".to_owned())];
    Cluster::start(&options)
}

#[test]
fn renewal_and_rotation_lose_no_request() {
    let mut cluster = short_lived(2);
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

#[test]
fn an_outage_longer_than_all_certificates_locks_nobody_out() {
    let mut cluster = short_lived(3);
    cluster.start_callers();
    cluster.apply(&stock(3, ""));
    let mut fault = Fault::begin("the only server and a node are away for longer than certificates live");
    cluster.agents[2].power_cut();
    cluster.await_nodes("the node is lost", |nodes| {
        nodes.iter().filter(|node| node.status == NodeStatus::Ready).count() == 2
    });
    cluster.await_containers("stock", "all are elsewhere", |all| all.iter().filter(|c| c.ready).count() == 3);
    let loads = cluster.call_always(&[0, 1], "stock", REST);
    cluster.servers[0].kill();
    std::thread::sleep(OUTAGE);
    assert_none_lost(&mut fault, "calls across nodes whose certificates have ended", loads);
    // A node that was off, and one that restarts, have nothing but an ended certificate.
    cluster.agents[1].kill();
    cluster.agents[1].start();
    cluster.agents[2].power_on();
    cluster.servers[0].start();
    cluster.await_server(0);
    cluster.await_nodes("all are ready", |nodes| {
        nodes.len() == 3 && nodes.iter().all(|node| node.status == NodeStatus::Ready)
    });
    for from in [0, 1] {
        let target = cluster.call_from(cluster.agents[from].host.address(), "stock");
        let good = || target.ask().is_ok_and(|(status, body)| status == 200 && body.contains(r#"{"200":1}"#));
        time_until(LIMIT, "calls pass again", || (0..20).all(|_| good()));
    }
    fault.recovered();
    fault.report();
    for agent in &mut cluster.agents {
        agent.running().await_log("the certificate was renewed", LIMIT);
    }
    cluster.apply(&stock(4, ""));
    cluster.assert_verified();
}
