//! The hosts that cluster tests use do what they say: they are machines of their own, a cut is a cut, a power cut leaves
//! nothing running, a full disk is full, and nothing is left of them.

use heptad_e2e::{Footprint, Host, HostOptions, Lan, Running, Target, sweep_hosts, wait_until};
use std::{
    io::{BufRead, BufReader},
    net::UdpSocket,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(60);
/// How long to listen for what must not come.
const SILENCE: Duration = Duration::from_millis(500);
const PORT: u16 = 8080;

/// A web server in the host that answers with the host's name.
fn serve(host: &Host) -> Running {
    let www = host.data_dir().join("www").display().to_string();
    host.ok(&["sh", "-c", "mkdir -p \"$1\" && hostname > \"$1/index.html\"", "sh", &www]);
    let server = host.spawn("httpd", &["busybox", "httpd", "-f", "-p", &PORT.to_string(), "-h", &www]);
    let own = format!("http://{}:{PORT}/", host.address());
    wait_until("the web server answers", SOON, || host.run(&["curl", "-s", "-m", "1", &own]).code == 0);
    server
}

/// What one host gets from another's web server.
fn get(from: &Host, to: &Host) -> Option<String> {
    let said = from.run(&["curl", "-s", "-m", "0.5", &format!("http://{}:{PORT}/", to.name())]);
    (said.code == 0).then(|| said.out.trim().to_owned())
}

fn pings(from: &Host, to: &Host) -> bool {
    from.run(&["busybox", "ping", "-c", "1", "-W", "1", &to.address().to_string()]).code == 0
}

#[test]
fn hosts_are_machines_of_their_own_that_reach_each_other() {
    let lan = Lan::start();
    let (a, b) = (lan.host("a"), lan.host("b"));
    let _servers = (serve(&a), serve(&b));
    assert!(pings(&a, &b) && pings(&b, &a));
    assert_eq!((get(&a, &b).as_deref(), get(&b, &a).as_deref()), (Some("b"), Some("a")));
    assert_eq!(a.ok(&["hostname"]), "a\n");
    assert_eq!(a.ok(&["cat", "/etc/hostname"]), "a\n");
    assert_eq!(a.ok(&["sh", "-c", "ls /sys/class/net | tr '\\n' ' '"]), "eth0 lo ");
    assert_eq!(a.ok(&["sh", "-c", "echo $HOME"]).trim(), a.dir().join("home").display().to_string());
    a.ok(&["sh", "-c", "mkdir -p /run/heptad && echo a > /run/heptad/own"]);
    assert_ne!(b.run(&["cat", "/run/heptad/own"]).code, 0, "what is in /run of one host is not in the other's");
    assert!(a.inside("/run/heptad/own".as_ref()).exists());
    // Its control groups are the roots of the hierarchies it sees.
    assert!(!a.ok(&["cat", "/proc/self/cgroup"]).contains("heptad-hosts"));
    let shown =
        a.ok(&["sh", "-c", "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do cat $d/cgroup.procs; done 2> /dev/null"]);
    assert!(shown.lines().any(|pid| pid == "1"), "{shown}");
    // No way out of it: neither to the machine's network nor beyond it.
    assert_eq!(a.ok(&["sh", "-c", "ip route get 1.1.1.1 | grep -c 'via 10.200.0.1 dev eth0'"]), "1\n");
    let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).expect("a port of the machine");
    let port = listener.local_addr().expect("an address").port();
    assert_ne!(a.run(&["curl", "-s", "-m", "1", &format!("http://{}:{port}/", lan.address())]).code, 0);
    // Tests are on the hosts' network when they want.
    let target = Target { from: Some(lan.network()), ..Target::new((b.address(), PORT).into(), "b") };
    assert_eq!(target.ask().expect("an answer"), (200, "b\n".to_owned()));
    assert_ne!(Target { from: None, ..target }.ask().ok(), Some((200, "b\n".to_owned())));
}

#[test]
fn a_cut_is_a_cut_and_healing_heals() {
    let lan = Lan::start();
    let (a, b, c) = (lan.host("a"), lan.host("b"), lan.host("c"));
    let _servers = [&a, &b, &c].map(serve);
    let reached = || {
        let hosts = [&a, &b, &c];
        let pairs = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (*from, *to)));
        let reached = pairs.filter(|(from, to)| from.name() != to.name() && get(from, to).is_some());
        reached.map(|(from, to)| format!("{}{}", from.name(), to.name())).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(reached(), "ab ac ba bc ca cb");
    a.cut();
    assert_eq!(reached(), "bc cb");
    let target = Target { from: Some(lan.network()), ..Target::new((a.address(), PORT).into(), "a") };
    assert!(lan.network().enter(|| std::net::TcpStream::connect_timeout(&target.address, SILENCE)).is_err());
    lan.heal();
    assert_eq!(reached(), "ab ac ba bc ca cb");
    assert!(target.ask().is_ok());
    a.cut_from(&b);
    assert_eq!(reached(), "ac bc ca cb");
    lan.heal();
    // One direction: a connection needs both, a datagram one.
    a.cut_towards(&b);
    assert_eq!(reached(), "ac bc ca cb");
    let hears = |from: &Host, to: &Host| {
        let (port, mut bytes) = (9999, [0; 8]);
        let listener = to.network().enter(|| UdpSocket::bind((to.address(), port)).expect("a port"));
        listener.set_read_timeout(Some(SILENCE)).expect("a limit");
        let sender = from.network().enter(|| UdpSocket::bind((from.address(), 0)).expect("a port"));
        sender.send_to(b"word", (to.address(), port)).expect("it is sent");
        listener.recv(&mut bytes).is_ok()
    };
    assert!(!hears(&a, &b) && hears(&b, &a));
}

#[test]
fn a_slow_host_or_pair_is_slow_and_others_are_not() {
    let lan = Lan::start();
    let (a, b, c) = (lan.host("a"), lan.host("b"), lan.host("c"));
    let _servers = [&a, &b, &c].map(serve);
    for host in [&a, &b, &c] {
        host.ok(&[
            "sh",
            "-c",
            "head -c 400000 /dev/zero > \"$1/www/much\"",
            "sh",
            &host.data_dir().display().to_string(),
        ]);
    }
    let seconds = |from: &Host, to: &Host| {
        let began = Instant::now();
        from.ok(&["curl", "-s", "-o", "/dev/null", &format!("http://{}:{PORT}/much", to.name())]);
        began.elapsed().as_secs_f64()
    };
    // 400 kB at 2 Mbit/s take 1.6 s, less what is let through at once.
    let (slow, quick) = (1.0, 0.8);
    assert!(seconds(&a, &b) < quick);
    a.slow(2_000);
    assert!(seconds(&a, &b) > slow && seconds(&b, &a) > slow && seconds(&b, &c) < quick);
    a.quicken();
    assert!(seconds(&a, &b) < quick);
    a.slow_from(&b, 2_000);
    assert!(seconds(&a, &b) > slow && seconds(&b, &a) > slow && seconds(&a, &c) < quick && seconds(&c, &b) < quick);
    a.quicken();
    b.quicken();
    assert!(seconds(&a, &b) < quick && seconds(&b, &a) < quick);
}

#[test]
fn a_program_is_killed_alone_and_a_host_with_all_that_is_in_it() {
    let lan = Lan::start();
    let (a, b) = (lan.host("a"), lan.host("b"));
    let mut parent = a.spawn("parent", &["sh", "-c", "echo begun; (setsid sleep 1234 &); sleep 5678; true"]);
    parent.await_log("begun", SOON);
    let has = |host: &Host, what: &str| host.processes().iter().any(|process| process.command.contains(what));
    wait_until("both sleep", SOON, || has(&a, "sleep 1234") && has(&a, "sleep 5678"));
    assert!(!has(&b, "sleep") || !has(&b, "1234"));
    let state = |what: &str| {
        let found = a.processes().into_iter().find(|process| process.command.starts_with(what)).expect("it is there");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", found.pid)).expect("it lives");
        stat.rsplit_once(") ").expect("fields").1.chars().next()
    };
    parent.pause();
    wait_until("it is stopped with its child", SOON, || state("sleep 5678") == Some('T'));
    assert_eq!(state("sleep 1234"), Some('S'), "it is nobody's child any more");
    parent.resume();
    wait_until("it goes on", SOON, || state("sleep 5678") == Some('S'));
    a.pause();
    wait_until("all is stopped", SOON, || state("sleep 1234") == Some('T'));
    a.resume();
    wait_until("all goes on", SOON, || state("sleep 1234") == Some('S'));
    assert!(parent.is_running());
    parent.kill();
    assert!(!parent.is_running() && has(&a, "sleep 5678") && has(&a, "sleep 1234"));

    std::fs::write(a.data_dir().join("kept"), "kept").expect("a file is written");
    let mut other = a.spawn("other", &["sleep", "4321"]);
    a.power_cut();
    assert!(!a.is_on() && a.processes().is_empty() && !pings(&b, &a));
    assert_eq!(other.wait(SOON), -9);
    a.boot();
    assert!(pings(&b, &a) && pings(&a, &b) && !has(&a, "sleep 1234"));
    assert_eq!(a.ok(&["cat", &a.data_dir().join("kept").display().to_string()]), "kept");
    assert_eq!(a.spawn("end", &["sh", "-c", "exit 7"]).wait(SOON), 7);
    assert_eq!(a.spawn("none", &["no-such-program"]).wait(SOON), 127);
}

#[test]
fn a_full_disk_is_full_and_outlives_a_power_cut() {
    let lan = Lan::start();
    let host = lan.host_with("a", HostOptions { disk_mib: Some(32), ..HostOptions::default() });
    let file = host.data_dir().join("file").display().to_string();
    let write = |text: &str| host.run(&["sh", "-c", "printf %s \"$2\" > \"$1\" && sync \"$1\"", "sh", &file, text]);
    assert_eq!(write("before").code, 0);
    host.fill_disk();
    let more = host.data_dir().join("more").display().to_string();
    let said = host.run(&["sh", "-c", "head -c 1000000 /dev/zero > \"$1\"", "sh", &more]);
    assert!(said.code != 0 && said.err.contains("No space left"), "{said:?}");
    host.power_cut();
    host.boot();
    assert_eq!(host.ok(&["cat", &file]), "before");
    assert!(std::fs::exists(host.inside(file.as_ref())).unwrap_or(false) && !std::fs::exists(&file).unwrap_or(true));
    host.free_disk();
    assert_eq!(write("after").code, 0);
}

#[test]
fn nothing_is_left_of_hosts_also_after_a_panic() {
    let make = || {
        let lan = Lan::start();
        let disk = HostOptions { disk_mib: Some(16), ..HostOptions::default() };
        let (a, b) = (lan.host_with("a", disk), lan.host("b"));
        let group = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir -p $d/heptad-x/y && echo 0 > $d/heptad-x/y/cgroup.procs; \
                     done 2> /dev/null; ip link add hep-x type bridge; nft add table inet heptad_x; exec sleep 1234";
        let running = b.spawn("group", &["sh", "-c", group]);
        wait_until("a container runs", SOON, || b.container_processes().iter().any(|p| p.command.contains("1234")));
        let footprint = lan.footprint(&[&a, &b]);
        assert!(footprint.traces().len() > 10, "{:#?}", footprint.traces());
        (lan, a, b, running, footprint)
    };
    let gone = |footprint: &Footprint| wait_until("nothing is left", SOON, || footprint.traces().is_empty());
    let made = make();
    let footprint = made.4.clone();
    drop(made);
    gone(&footprint);
    let told = std::sync::Mutex::new(None);
    let panicked = std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let made = make();
            *told.lock().expect("unpoisoned") = Some(made.4.clone());
            assert!(made.0.dir().starts_with("/nowhere"), "a test that fails");
        });
        inside.join().is_err()
    });
    assert!(panicked);
    gone(&told.into_inner().expect("unpoisoned").expect("it was told"));
}

#[test]
fn what_a_killed_test_left_is_swept() {
    let mut other = Command::new(env!("CARGO_BIN_EXE_hosts"))
        .arg("2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program of hosts starts");
    let lines = BufReader::new(other.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| line != "ready").collect();
    let dir = said[0].split(' ').nth(1).expect("it names its directory");
    let name = dir.rsplit('/').next().expect("a name").to_owned();
    let footprint = Footprint::named(&name);
    assert!(footprint.traces().len() > 5, "{said:#?} {:#?}", footprint.traces());
    assert!(!sweep_hosts().contains(&name), "who lives is not swept");
    assert!(footprint.traces().len() > 5);
    other.kill().expect("it is killed");
    other.wait().expect("it ends");
    // Its hosts end by themselves.
    let processes = || footprint.traces().into_iter().filter(|trace| trace.starts_with("process")).collect::<Vec<_>>();
    wait_until("the processes of its hosts are gone", SOON, || processes().is_empty());
    sweep_hosts();
    assert_eq!(footprint.traces(), Vec::<String>::new());
}
