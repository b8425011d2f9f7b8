//! A process of the platform dies; the next one finds its containers as they are, and removes what nobody needs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use heptad_net::{Error, Network, Options, Protocol};

use crate::world::{HOST_IP, OUTSIDE_IP, greeter, greeting, ids, inside, on_a_host, output, port, run};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn the_living_keep_their_network_and_the_dead_lose_it() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        let b = network.attach("b", &[port(8081, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        drop(network);
        let network = world.reopen(&["a", "unknown"]).await;
        assert_eq!(network.list().await, std::slice::from_ref(&a));
        assert!(greeting((HOST_IP, 8080)).is_ok() && greeting((Ipv4Addr::LOCALHOST, 8080)).is_ok());
        assert!(TcpListener::bind((ANY, 8080)).is_err(), "the port is held again");
        assert!(greeting((HOST_IP, 8081)).is_err() && !b.netns_path.exists());
        assert!(!output("ip", &["link", "show", &b.host_link]).0, "the link of b is gone");
        let c = network.attach("c", &[port(8081, 80, Protocol::Tcp)]).await.expect("attaches");
        assert!(c.ip != a.ip && c.gateway == a.gateway);
        network.close().await.expect("closes");
    });
}

#[test]
fn connections_survive_the_restart() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let (out, listener) =
            (OUTSIDE_IP, world.outside(|| TcpListener::bind((OUTSIDE_IP, 80)).expect("listens")).await);
        let mut client = inside(&a.netns_path, move || TcpStream::connect((out, 80)).expect("connects")).await;
        let (mut server, _) = listener.accept().expect("accepts");
        drop(network);
        let network = world.reopen(&["a"]).await;
        client.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
        server.write_all(b"still here").expect("sends");
        let mut text = [0; 10];
        client.read_exact(&mut text).expect("arrives");
        assert_eq!(&text, b"still here");
        network.close().await.expect("closes");
    });
}

#[test]
fn rules_that_containers_use_are_never_away_for_a_moment() {
    on_a_host(|world| async move {
        // Tables that were replaced have other handles.
        let tables = || run("nft", &["-a", "list", "tables"]);
        let network = world.open().await;
        let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        let before = (tables(), run("nft", &["list", "ruleset"]));
        assert!(before.0.contains("heptad_t0"), "{before:?}");
        drop(network);
        let network = world.reopen(&["a"]).await;
        assert_eq!((tables(), run("nft", &["list", "ruleset"])), before);
        for _ in 0..3 {
            network.repair().await.expect("loads the rules again");
            assert!(greeting((HOST_IP, 8080)).is_ok() && greeting((Ipv4Addr::LOCALHOST, 8080)).is_ok());
        }
        assert_eq!((tables(), run("nft", &["list", "ruleset"])), before);
        // Tables of another kind, as an older version has them, are replaced.
        run("nft", &["add", "chain", "inet", "heptad_t0", "older"]);
        let chains = run("nft", &["list", "table", "inet", "heptad_t0"]);
        let shape = chains.split_whitespace().find(|word| word.starts_with("shape_")).expect("a chain of that name");
        run("nft", &["delete", "chain", "inet", "heptad_t0", shape]);
        network.repair().await.expect("loads the rules again");
        assert_ne!(tables(), before.0);
        for family in ["inet", "bridge"] {
            assert!(before.1.contains(&run("nft", &["list", "table", family, "heptad_t0"])), "{family}");
        }
        network.close().await.expect("closes");
    });
}

#[test]
fn torn_records_and_half_made_networks_are_cleaned() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let b = network.attach("b", &[]).await.expect("attaches");
        let c = network.attach("c", &[]).await.expect("attaches");
        drop(network);
        let records = world.options("t0").dir.join("containers");
        fs::write(records.join("a.json"), b"{\"id\":").expect("torn");
        fs::write(records.join("x.tmp"), b"half").expect("a temporary file");
        run("ip", &["link", "del", &b.host_link]);
        let network = world.reopen(&["a", "b", "c"]).await;
        assert_eq!(network.list().await, [c], "a has no record, b no link: the caller must attach them again");
        assert!(!a.netns_path.exists() && !b.netns_path.exists() && !records.join("x.tmp").exists());
        network.attach("a", &[]).await.expect("attaches");
        network.close().await.expect("closes");
    });
}

#[test]
fn ranges_stay_while_containers_live() {
    on_a_host(|world| async move {
        let other = |subnet: &str| Options { subnet: subnet.parse().ok(), ..world.options("t0") };
        let network = world.open().await;
        network.attach("a", &[]).await.expect("attaches");
        drop(network);
        let refused = Network::open(other("10.99.0.0/24"), &ids(&["a"])).await;
        assert!(matches!(refused, Err(Error::RangeInUse { containers: 1, .. })), "{refused:?}");
        let moved = Network::open(other("10.99.0.0/24"), &ids(&[])).await.expect("no container is left");
        assert_eq!(moved.gateway(), Ipv4Addr::new(10, 99, 0, 1));
        drop(moved);
        let network = world.reopen(&[]).await;
        assert_eq!(network.gateway(), Ipv4Addr::new(10, 99, 0, 1), "the former range is kept");
        network.close().await.expect("closes");
    });
}
