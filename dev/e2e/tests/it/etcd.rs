//! The etcd clusters that cluster tests use: a real one, on hosts, that does what etcd does when it is hurt.

use heptad_e2e::{Etcd, HostOptions, Lan, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const DISK_MIB: u32 = 192;

#[test]
fn it_goes_on_without_one_member_and_not_without_two() {
    let lan = Lan::start();
    let mut etcd = Etcd::start(&lan, &HostOptions { disk_mib: Some(DISK_MIB), ..HostOptions::default() });
    etcd.hosts[0].fill_disk();
    wait_until("a full disk is one member's matter", SOON, || etcd.takes_writes());
    etcd.hosts[0].free_disk();
    etcd.kill_member(1);
    wait_until("two are a majority", SOON, || etcd.takes_writes());
    etcd.hosts[0].cut_from(&etcd.hosts[2]);
    wait_until("one is not", SOON, || !etcd.takes_writes());
    lan.heal();
    wait_until("two again", SOON, || etcd.takes_writes());
    etcd.start_member(1);
    etcd.hosts[2].power_cut();
    wait_until("the one that came back counts", SOON, || etcd.takes_writes());
}
