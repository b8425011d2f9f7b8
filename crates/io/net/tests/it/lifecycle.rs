//! Containers come and go, and nothing stays.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use heptad_net::{Error, Network, Options, Outside, Protocol, facts};
use tokio::time::{sleep, timeout};

use crate::world::{HOST_IP, chain, echo, ids, inside, on_a_host, output, port, process, run};

/// Longer than anything here takes unless it waits for another.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_container_gets_an_address_a_route_and_a_loopback() {
    on_a_host(|world| async move {
        let network = world.open().await;
        assert_eq!(network.gateway(), Ipv4Addr::new(10, 88, 0, 1));
        let web = network.attach("web-1", &[]).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!((web.ip, web.gateway), (Ipv4Addr::new(10, 88, 0, 2), network.gateway()));
        let gateway = web.gateway;
        inside(&web.netns_path, move || echo(gateway)).await.expect("the gateway answers");
        let (_, links) = process(&web, &["ip", "-o", "addr"]).await;
        assert!(links.contains("127.0.0.1/8") && links.contains("10.88.0.2/24"), "{links}");
        assert!(!links.contains("fe80"), "no IPv6 on eth0: {links}");
        let (_, port) = process(&web, &["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).await;
        assert_eq!(port.trim(), "0");
        let bridged = run("bridge", &["-d", "link", "show", "dev", &web.host_link]);
        assert!(bridged.contains("isolated on") && bridged.contains("hairpin off"), "{bridged}");
        network.close().await.expect("closes");
    });
}

#[test]
fn attach_and_detach_can_be_repeated() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let first = network.attach("a", &[]).await.expect("attaches");
        assert_eq!(network.attach("a", &[]).await.expect("again"), first);
        assert_eq!(network.list().await, std::slice::from_ref(&first));
        assert_eq!(network.container_at(first.ip).await.as_deref(), Some("a"));
        network.detach("a").await.expect("detaches");
        network.detach("a").await.expect("again");
        network.detach("never").await.expect("unknown is fine");
        assert!(network.list().await.is_empty() && !first.netns_path.exists());
        assert_ne!(network.attach("a", &[]).await.expect("attaches").ip, first.ip, "an address rests");
        assert!(matches!(network.attach("../a", &[]).await, Err(Error::InvalidContainerId { .. })));
        assert!(matches!(network.publish("b", port(1, 1, Protocol::Tcp)).await, Err(Error::NotAttached { .. })));
        network.close().await.expect("closes");
    });
}

#[test]
fn close_removes_everything() {
    on_a_host(|world| async move {
        let before = state_of_the_host();
        let network = world.open().await;
        let running = state_of_the_host();
        assert!(
            running.contains("hep-t0") && running.contains("heptad_t0") && running.contains("forward=1"),
            "{running}"
        );
        for id in ["a", "b", "c"] {
            network.attach(id, &[port(8000 + u16::from(id.as_bytes()[0]), 80, Protocol::Tcp)]).await.expect("attaches");
        }
        network.close().await.expect("closes");
        assert_eq!(state_of_the_host(), before);
        let dir = world.options("t0").dir;
        assert!(fs::read_dir(dir.join("ns")).expect("listed").next().is_none());
        assert!(fs::read_dir(dir.join("containers")).expect("listed").next().is_none());
        assert!(!dir.join("instance.json").exists());
    });
}

fn state_of_the_host() -> String {
    let forward = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable");
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("readable");
    // Pins of a platform that runs on this machine are seen here too, and come and go.
    let is_own = |line: &&str| line.contains(" - nsfs ") && !line.contains(" /run/");
    let pins = mounts.lines().filter(is_own).count();
    let routes = run("ip", &["-4", "route", "show", "table", "all"]);
    let rules = run("nft", &["list", "ruleset"]);
    format!("forward={forward}pins={pins}\n{:?}\n{routes}{rules}", names_of_links())
}

#[test]
fn two_instances_take_different_ranges_and_one_directory_has_one_owner() {
    on_a_host(|world| async move {
        run("ip", &["route", "add", "10.88.0.0/23", "dev", "ext0"]);
        let one = world.open().await;
        assert_eq!(one.subnet().to_string(), "10.88.2.0/24", "a routed range is left alone");
        let two = Network::open(world.options("t1"), &ids(&[])).await.expect("opens");
        assert_ne!(one.subnet(), two.subnet());
        assert_ne!(one.service_cidr(), two.service_cidr());
        let again = Network::open(world.options("t0"), &ids(&[])).await;
        assert!(matches!(again, Err(Error::Busy { .. })), "{again:?}");
        let taken = Options { subnet: Some(one.subnet()), ..world.options("t2") };
        assert!(matches!(Network::open(taken, &ids(&[])).await, Err(Error::RangeTaken { .. })));
        one.close().await.expect("closes");
        let forward = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("readable");
        assert_eq!(forward.trim(), "1", "the other instance still needs it");
        two.close().await.expect("closes");
    });
}

#[test]
fn a_failed_attach_leaves_nothing() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let links = names_of_links();
        let holder = std::net::TcpListener::bind((HOST_IP, 8080)).expect("a host process");
        let refused = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await;
        assert!(matches!(refused, Err(Error::HostPortTaken { host_port: 8080, .. })), "{refused:?}");
        assert_eq!(names_of_links(), links);
        assert!(network.list().await.is_empty());
        drop(holder);
        network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("the port is free now");
        network.close().await.expect("closes");
    });
}

#[test]
fn a_slow_attach_delays_no_other_container_and_gives_everything_back_when_it_fails() {
    on_a_host(|world| async move {
        let subnet = Some("10.88.0.0/29".parse().expect("a range"));
        let options = Options { subnet, ..world.options("t0") };
        let dir = options.dir.clone();
        let network = Arc::new(Network::open(options, &ids(&[])).await.expect("opens"));
        network.attach("there", &[]).await.expect("attaches");
        let nft = world.hold_nft("tcp . 8080 :");
        let ports = [port(8080, 80, Protocol::Tcp)];
        let slow = tokio::spawn({
            let network = network.clone();
            async move { network.attach("slow", &ports).await }
        });
        timeout(PATIENCE, nft.asked()).await.expect("it comes to its ports");
        let others = async {
            network.attach("other", &[port(8081, 80, Protocol::Tcp)]).await.expect("attaches");
            network.set_outside("other", Outside { reaches: false, reached: false }).await.expect("changes");
            network.detach("there").await.expect("detaches");
            network.attach("rival", &ports).await
        };
        let refused = timeout(PATIENCE, others).await.expect("nobody waits for the slow one");
        assert!(matches!(&refused, Err(Error::HostPortPublished { holder, .. }) if holder == "slow"), "{refused:?}");
        let mut end = pin!(network.detach("slow"));
        assert!(end.as_mut().now_or_never().is_none(), "a container has one change at a time");
        assert!(!slow.is_finished());
        nft.refuse();
        let failed = slow.await.expect("it does not panic");
        assert!(matches!(failed, Err(Error::Nft { .. })), "{failed:?}");
        end.await.expect("there is nothing to detach");
        assert_eq!((entries(&dir.join("ns")), entries(&dir.join("containers"))), (1, 1), "the other one's");
        assert_eq!(names_of_links().len(), 4, "lo, ext0, the bridge and the other one's: {:?}", names_of_links());
        drop(std::net::TcpListener::bind((HOST_IP, 8080)).expect("the port is free"));
        for id in ["b", "c", "d", "e"] {
            network.attach(id, &[]).await.expect("five addresses are in the range, and one is taken");
        }
        network.close().await.expect("closes");
    });
}

#[test]
fn several_are_attached_at_once_and_one_that_fails_leaves_nothing() {
    on_a_host(|world| async move {
        let before = state_of_the_host();
        let network = world.open().await;
        let dir = world.options("t0").dir;
        // The name of the link of one of them is taken.
        run("ip", &["link", "add", "hvt0-5", "type", "veth", "peer", "name", "other"]);
        let attach = |number: u16| {
            let network = &network;
            async move { network.attach(&format!("c{number}"), &[port(8000 + number, 80, Protocol::Tcp)]).await }
        };
        let mut all: FuturesUnordered<_> = (0..8).map(attach).collect();
        let first = all.next().await.expect("eight are attached");
        assert_eq!(
            entries(&dir.join("containers")) + usize::from(first.is_err()),
            8,
            "all have begun before one has ended"
        );
        let mut ended: Vec<_> = all.collect().await;
        ended.push(first);
        let (made, failed): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
        assert!(matches!(failed[..], [Err(Error::Netlink { .. })]), "{failed:?}");
        assert_eq!((entries(&dir.join("ns")), entries(&dir.join("containers"))), (7, 7));
        assert_eq!(names_of_links().len(), 3 + 7, "{:?}", names_of_links());
        assert_eq!(network.list().await.len(), 7);
        for container in made.into_iter().flatten() {
            let held = std::net::TcpListener::bind((HOST_IP, container.host_ports[0].host_port));
            assert!(held.is_err(), "its port is its own");
            inside(&container.netns_path, move || echo(container.gateway)).await.expect("the gateway answers");
        }
        let detach = |number: u16| {
            let network = &network;
            async move { network.detach(&format!("c{number}")).await }
        };
        let gone: Vec<_> = (0..8).map(detach).collect::<FuturesUnordered<_>>().collect().await;
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        assert_eq!((names_of_links().len(), entries(&dir.join("ns"))), (3, 0));
        network.close().await.expect("closes");
        assert_eq!(state_of_the_host(), before);
    });
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).expect("listed").count()
}

fn names_of_links() -> Vec<String> {
    let links = run("ip", &["-o", "-br", "link"]);
    links.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

#[test]
fn an_attach_that_is_cut_short_is_cleaned_up_by_the_next_call() {
    on_a_host(|world| async move {
        let before = state_of_the_host();
        let network = world.open().await;
        let mut cut = 0;
        for micros in (0..8_000).step_by(400) {
            let ports = [port(8080, 80, Protocol::Tcp)];
            let limit = Duration::from_micros(micros);
            cut += usize::from(timeout(limit, network.attach("a", &ports)).await.is_err());
            // The thread that creates the namespace is not cut short with its caller.
            sleep(Duration::from_millis(20)).await;
            network.detach("a").await.expect("detaches");
            assert_eq!(names_of_links().len(), 3, "lo, ext0 and the bridge: {:?}", names_of_links());
        }
        assert!(cut > 0);
        let a = network.attach("a", &[]).await.expect("attaches");
        inside(&a.netns_path, move || echo(a.gateway)).await.expect("the gateway answers");
        network.close().await.expect("closes");
        assert_eq!(state_of_the_host(), before);
    });
}

#[test]
fn facts_say_what_works_and_leave_no_trace() {
    on_a_host(|world| async move {
        let before = state_of_the_host();
        let facts = facts().await;
        assert!(facts.usable(), "{facts:?}");
        assert_eq!(state_of_the_host(), before);
        let chain = "table ip f { chain c { type filter hook forward priority 0; policy drop; }; }";
        assert!(output("nft", &[chain]).0);
        let facts = heptad_net::facts().await;
        assert!(facts.forward_dropped_by_others && !facts.input_dropped_by_others, "{facts:?}");
        drop(world);
    });
}

/// Not a check: prints how long containers take. `cargo test -p heptad-net -- --ignored --nocapture attach_time`
#[test]
#[ignore = "prints a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement is for the reader of the terminal")]
fn attach_time() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let mut attach = Vec::new();
        let mut ported = Vec::new();
        let mut detach = Vec::new();
        for number in 0..60u16 {
            let ports = if number % 2 == 0 { vec![] } else { vec![port(20_000 + number, 80, Protocol::Tcp)] };
            let start = Instant::now();
            network.attach(&format!("c{number}"), &ports).await.expect("attaches");
            (if ports.is_empty() { &mut attach } else { &mut ported }).push(start.elapsed());
        }
        for number in 0..60 {
            let start = Instant::now();
            network.detach(&format!("c{number}")).await.expect("detaches");
            detach.push(start.elapsed());
        }
        for (name, times) in [("attach", &mut attach), ("attach + 1 port", &mut ported), ("detach", &mut detach)] {
            let first = times[0];
            times.sort();
            println!("{name}: first {first:?}, median {:?}, max {:?}", times[times.len() / 2], times[times.len() - 1]);
        }
        network.close().await.expect("closes");
    });
}
