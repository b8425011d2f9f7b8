//! Three servers on etcd, damaged one by one: no acknowledged write is lost, no container is restarted, capacity is
//! never exceeded, and work continues within seconds.

use super::{REST, stock};
use heptad_e2e::{Cluster, ClusterOptions, Fault, Ledger, time_until};
use std::{collections::BTreeSet, time::Duration};

const GOES_ON: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(120);
/// Longer than a lease.
const PAUSED: Duration = Duration::from_secs(15);
const DISK_MIB: u32 = 384;

struct World {
    cluster: Cluster,
    ledger: Ledger,
    essence: Vec<(String, Option<String>, u32)>,
    scale: u8,
}

impl World {
    fn leader(&self) -> usize {
        time_until(LIMIT, "somebody leads", || self.cluster.leader().is_some());
        self.cluster.leader().expect("somebody leads")
    }

    /// Damages the cluster, and checks that it does its work: a new replica is placed and runs in time.
    fn hurt(&mut self, name: &str, hurt: impl FnOnce(&mut Cluster), heal: impl FnOnce(&mut Cluster)) {
        let loads = self.cluster.call_always(&[0, 1], "stock", REST);
        self.ledger.forget_pauses();
        let mut fault = Fault::begin(name);
        hurt(&mut self.cluster);
        self.scale += 1;
        let file = self.cluster.write("more.yaml", &stock(self.scale, ""));
        time_until(LIMIT, "an apply is accepted", || self.cluster.heptad(&["apply", "-f", &file]).code == 0);
        fault.noticed();
        time_until(LIMIT, "the new replica runs", || {
            self.cluster.containers("stock").iter().filter(|c| c.ready).count() == usize::from(self.scale)
        });
        fault.recovered();
        let tallies: Vec<_> = loads.into_iter().map(heptad_e2e::Load::end).collect();
        tallies.iter().for_each(|tally| fault.requests(tally));
        heal(&mut self.cluster);
        (0..self.cluster.servers.len()).for_each(|at| self.cluster.await_server(at));
        let client = self.cluster.client();
        let lost = self.cluster.block_on(self.ledger.lost(&client)).expect("the server answers");
        fault.writes(&self.ledger, lost.len());
        let now = self.cluster.essence("caller");
        let same: BTreeSet<_> = now.iter().collect();
        fault.restarted(self.essence.iter().filter(|one| !same.contains(one)).count());
        fault.report();
        assert_eq!(lost, Vec::<String>::new(), "{name}: acknowledged writes are lost");
        assert_eq!(now, self.essence, "{name}: containers were restarted");
        tallies.iter().for_each(|tally| tally.assert_none_lost(name));
        fault.assert_within(None, Some(GOES_ON));
        self.cluster.assert_verified();
    }
}

#[test]
fn three_servers_on_etcd_lose_nothing() {
    let options = ClusterOptions { etcd_disk_mib: Some(DISK_MIB), ..ClusterOptions::available(2) };
    let cluster = Cluster::start(&options);
    cluster.start_callers();
    cluster.apply(&stock(1, ""));
    let (ledger, essence) = (Ledger::start(cluster.sockets()), cluster.essence("caller"));
    let mut world = World { cluster, ledger, essence, scale: 1 };

    let first = world.leader();
    world.hurt("the leading server is killed", |c| c.servers[first].kill(), |c| c.servers[first].start());
    world.hurt("a member of etcd is killed", |c| etcd(c).kill_member(0), |c| etcd(c).start_member(0));
    let paused = world.leader();
    world.hurt(
        "the leading server is stopped for longer than its lease, and goes on",
        |c| {
            c.servers[paused].away = true;
            c.servers[paused].running().pause();
        },
        |c| {
            std::thread::sleep(PAUSED);
            c.servers[paused].running().resume();
            c.servers[paused].away = false;
        },
    );
    let cut = world.leader();
    world.hurt(
        "the leading server is cut off from etcd",
        |c| {
            c.servers[cut].away = true;
            let (server, etcd) = (&c.servers[cut].host, c.etcd.as_ref().expect("etcd"));
            etcd.hosts.iter().for_each(|host| server.cut_from(host));
        },
        |c| {
            c.lan.heal();
            c.servers[cut].away = false;
        },
    );
    world.hurt(
        "the disk of a member of etcd is full",
        |c| etcd(c).hosts[1].fill_disk(),
        |c| etcd(c).hosts[1].free_disk(),
    );
    world.ledger.end();
}

fn etcd(cluster: &mut Cluster) -> &mut heptad_e2e::Etcd {
    cluster.etcd.as_mut().expect("it has etcd")
}
