//! The network between hosts: a bridge in a namespace of its own, cut by nftables and slowed by traffic control at its ports.
//! It is not connected with the machine's network. Knows ports by the number of their host, nothing of the host.

use super::{init::Init, sweep};
use crate::image::run_tool;
use std::{
    collections::BTreeSet,
    fs::File,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

const NETWORK: [u8; 3] = [10, 200, 0];
const FIRST_HOST: u8 = 11;
const HOSTS_MAX: u8 = 200;
const BURST: &str = "32kb";
const QUEUE_MS: &str = "400ms";

/// Rules that drop what goes between ports of these sets, also what tests send from the bridge itself.
const RULES: &str = "table bridge cuts {
    set hosts { type ifname; }
    set pairs { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0;
        iifname @hosts drop
        oifname @hosts drop
        iifname . oifname @pairs drop
    }
    chain input { type filter hook input priority 0; iifname @hosts drop; }
    chain output { type filter hook output priority 0; oifname @hosts drop; }
}
";

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    init: Init,
    next: AtomicU8,
    /// Ports that have classes, one for each sender that is slowed.
    classful: Mutex<BTreeSet<u8>>,
    pub(super) names: Mutex<Vec<(Ipv4Addr, String)>>,
}

impl Wire {
    pub(super) fn new() -> Self {
        let name = sweep::new_name();
        let dir = sweep::dir_of(&name);
        std::fs::create_dir_all(&dir).expect("a directory for hosts is made");
        let [a, b, c] = NETWORK;
        let script = format!(
            "set -eu; ip link set lo up; ip link add lan type bridge mcast_snooping 0; ip address add {a}.{b}.{c}.1/24 dev lan; \
             ip link set lan up; echo ready; exec cat > /dev/null"
        );
        let init = Init::start(Command::new("unshare").args(["--net", "sh", "-c", &script]), false);
        let wire = Self {
            name,
            dir,
            init,
            next: AtomicU8::new(FIRST_HOST),
            classful: Mutex::default(),
            names: Mutex::default(),
        };
        wire.nft(RULES);
        wire
    }

    pub(super) fn pid(&self) -> i32 {
        self.init.pid
    }

    /// The number of one more host: of its port, and the last of its address.
    pub(super) fn number(&self) -> u8 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < HOSTS_MAX, "a network has at most {} hosts", HOSTS_MAX - FIRST_HOST);
        number
    }

    pub(super) fn address(number: u8) -> Ipv4Addr {
        let [a, b, c] = NETWORK;
        Ipv4Addr::new(a, b, c, number)
    }

    fn inside(&self, pid: i32, words: &[&str]) -> String {
        let target = pid.to_string();
        run_tool("nsenter", &[&["--target", &target, "--net"], words].concat())
    }

    fn here(&self, words: &[&str]) -> String {
        self.inside(self.init.pid, words)
    }

    fn nft(&self, rules: &str) {
        self.here(&["nft", rules]);
    }

    /// Connects the namespace of that process. A host keeps its hardware address when it starts anew: others remember it.
    pub(super) fn plug(&self, number: u8, pid: i32) {
        let script = format!(
            "set -eu; ip link add p{number} type veth peer name eth0 address 02:00:0a:c8:00:{number:02x} netns {pid}; \
             ip link set p{number} master lan up"
        );
        self.here(&["sh", "-c", &script]);
        let [a, b, c] = NETWORK;
        let address = Self::address(number);
        let script = format!(
            "set -eu; ip address add {address}/24 dev eth0; ip link set eth0 up; ip route add default via {a}.{b}.{c}.1"
        );
        self.inside(pid, &["sh", "-c", &script]);
        self.classful.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }

    /// Takes the cable out, which may be gone with the host already.
    pub(super) fn unplug(&self, number: u8) {
        self.here(&["sh", "-c", &format!("ip link delete p{number} 2> /dev/null || true")]);
    }

    pub(super) fn cut(&self, number: u8) {
        self.nft(&format!("add element bridge cuts hosts {{ p{number} }}"));
    }

    pub(super) fn cut_from_to(&self, from: u8, to: u8) {
        self.nft(&format!("add element bridge cuts pairs {{ p{from} . p{to} }}"));
    }

    pub(super) fn heal(&self) {
        self.nft("flush set bridge cuts hosts; flush set bridge cuts pairs");
    }

    /// Limits everything to and from that process's host to this many bits per second.
    pub(super) fn slow(&self, number: u8, pid: i32, kbit: u32) {
        let rate = format!("{kbit}kbit");
        let words = ["rate", &rate, "burst", BURST, "latency", QUEUE_MS];
        self.here(&[&["tc", "qdisc", "replace", "dev", &format!("p{number}"), "root", "tbf"], &words[..]].concat());
        self.inside(pid, &[&["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf"], &words[..]].concat());
    }

    /// Limits what goes from one to the other to this many bits per second.
    pub(super) fn slow_from_to(&self, from: u8, to: u8, kbit: u32) {
        let (port, rate) = (format!("p{to}"), format!("{kbit}kbit"));
        let mut classful = self.classful.lock().unwrap_or_else(PoisonError::into_inner);
        if classful.insert(to) {
            self.here(&["tc", "qdisc", "replace", "dev", &port, "root", "handle", "1:", "htb"]);
        }
        let (class, source) = (format!("1:{from:x}"), Self::address(from).to_string());
        self.here(&["tc", "class", "replace", "dev", &port, "parent", "1:", "classid", &class, "htb", "rate", &rate]);
        let filter = ["tc", "filter", "add", "dev", &port, "parent", "1:", "protocol", "ip", "u32"];
        self.here(&[&filter[..], &["match", "ip", "src", &source, "flowid", &class]].concat());
    }

    /// As fast as the machine again.
    pub(super) fn quicken(&self, number: u8, pid: Option<i32>) {
        let delete = |dev: &str| format!("tc qdisc delete dev {dev} root 2> /dev/null || true");
        self.here(&["sh", "-c", &delete(&format!("p{number}"))]);
        if let Some(pid) = pid {
            self.inside(pid, &["sh", "-c", &delete("eth0")]);
        }
        self.classful.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        sweep::remove(&self.name);
    }
}

/// The network of a namespace, for threads that shall be in it.
#[derive(Clone, Debug)]
pub struct Network(std::sync::Arc<File>);

impl Network {
    pub(super) fn of(pid: i32) -> Self {
        let path = format!("/proc/{pid}/ns/net");
        Self(std::sync::Arc::new(File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))))
    }

    pub(super) fn inode(&self) -> u64 {
        self.0.metadata().expect("a namespace is a file").ino()
    }

    /// From now on, sockets of this thread belong to this network. There is no way back: let the thread end.
    pub fn enter_with_this_thread(&self) {
        nix::sched::setns(&*self.0, nix::sched::CloneFlags::CLONE_NEWNET).expect("root enters a network");
    }

    /// Does something in a thread that is in this network.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter_with_this_thread();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
