//! The only server is away: proxies go on routing, agents go on restarting, and nothing is restarted when it returns.

use super::{REST, assert_none_lost, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, run_tool, time_until};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
/// How long the server is away: longer than it takes to call a node lost.
const AWAY: Duration = Duration::from_secs(12);

#[test]
fn without_the_server_all_goes_on_and_its_return_disturbs_nothing() {
    let mut cluster = Cluster::start(&ClusterOptions::small(2));
    cluster.start_callers();
    cluster.apply(&stock(2, ""));
    cluster.apply(&crate::shell("victim", "exec sleep 86411", ""));
    let services = ["stock", "caller"];
    let before = services.map(|service| cluster.essence(service));
    let victim = cluster.containers("victim");
    let node = victim[0].node.clone().expect("it runs somewhere").to_string();
    let loads = cluster.call_always(&[0, 1], "stock", REST);

    let mut fault = Fault::begin("the only server is killed and away for 12 s");
    cluster.servers[0].kill();
    let host = &cluster.agents.iter().find(|agent| agent.host.name() == node).expect("a node").host;
    let running = || {
        let all = host.container_processes().into_iter();
        all.filter(|process| process.command.contains("sleep 86411")).map(|process| process.pid).next()
    };
    let killed = running().expect("its process");
    run_tool("kill", &["-9", &killed.to_string()]);
    time_until(LIMIT, "its agent starts it again", || running().is_some_and(|pid| pid != killed));
    std::thread::sleep(AWAY.saturating_sub(fault.elapsed()));
    let mut back = Fault::begin("the only server returns");
    cluster.servers[0].start();
    cluster.await_server(0);
    cluster.await_nodes("both are ready", |nodes| {
        nodes.len() == 2 && nodes.iter().all(|node| node.status == heptad_model::NodeStatus::Ready)
    });
    cluster.await_containers("victim", "its restart is told", |all| {
        all.len() == 1 && all[0].id == victim[0].id && all[0].ready && all[0].restarts == 1
    });
    back.recovered();
    back.report();
    // What a server that takes living nodes for dead would do, it does now.
    std::thread::sleep(AWAY);
    let after = services.map(|service| cluster.essence(service));
    fault.restarted(before.iter().flatten().filter(|one| !after.iter().flatten().any(|other| other == *one)).count());
    assert_none_lost(&mut fault, "calls across nodes while the server is away", loads);
    fault.report();
    assert_eq!(before, after);
    cluster.assert_verified();
}
