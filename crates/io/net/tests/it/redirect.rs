//! Every connection to a service address arrives at the proxy's port with its destination still known.

use std::{net::Ipv4Addr, os::fd::AsFd};

use heptad_net::{Attachment, Network, Options, Outside, Protocol};
use nix::sys::socket::{getsockopt, sockopt::OriginalDst};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::world::{
    HOST_IP, OUTSIDE_IP, PROXY_PORT, greeter, greeting, ids, inside, on_a_host, port, process, udp_greeter,
    udp_greeting,
};

/// Plays the proxy: tells each caller where it wanted to go, and who it is.
async fn proxy(network: &Network) {
    let listener = TcpListener::bind((network.gateway(), PROXY_PORT)).await.expect("the proxy listens");
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let wanted = getsockopt(&stream.as_fd(), OriginalDst).expect("the original destination");
            let ip = Ipv4Addr::from(u32::from_be(wanted.sin_addr.s_addr));
            let text = format!("{} wants {ip}:{}", peer.ip(), u16::from_be(wanted.sin_port));
            stream.write_all(text.as_bytes()).await.expect("the caller listens");
        }
    });
}

async fn call(from: &Attachment, ip: Ipv4Addr, port: u16) -> std::io::Result<String> {
    inside(&from.netns_path, move || greeting((ip, port))).await
}

#[test]
fn one_rule_redirects_every_address_and_port_of_the_range() {
    on_a_host(|world| async move {
        let network = world.open().await;
        proxy(&network).await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let b = network.attach("b", &[]).await.expect("attaches");
        for (ip, port) in [([10, 89, 0, 1], 80), ([10, 89, 0, 7], 1), ([10, 89, 15, 254], 65_535)] {
            let ip = Ipv4Addr::from(ip);
            for from in [&a, &b] {
                let said = call(from, ip, port).await.expect("redirected");
                assert_eq!(said, format!("{} wants {ip}:{port}", from.ip));
            }
        }
        let shell = "exec 3<>/dev/tcp/10.89.1.1/8080 && cat <&3";
        let (ok, said) = process(&a, &["timeout", "5", "bash", "-c", shell]).await;
        assert!(ok && said == format!("{} wants 10.89.1.1:8080", a.ip), "a real process: {said}");
        network.close().await.expect("closes");
    });
}

/// Policies that select a container for ingress say who may call it, and nothing about what it may call itself.
#[test]
fn a_sheltered_container_calls_services_names_and_the_outside() {
    for dns_port in [53, 5353] {
        on_a_host(move |world| async move {
            let options = Options { dns_port, ..world.options("t0") };
            let network = Network::open(options, &ids(&[])).await.expect("opens");
            proxy(&network).await;
            udp_greeter((network.gateway(), dns_port));
            greeter((network.gateway(), dns_port));
            world
                .outside(|| {
                    greeter((OUTSIDE_IP, 80));
                    udp_greeter((OUTSIDE_IP, 81));
                })
                .await;
            let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
            network.set_outside("a", Outside { reaches: true, reached: false }).await.expect("sheltered");
            let said = call(&a, Ipv4Addr::new(10, 89, 0, 7), 80).await.expect("a service");
            assert_eq!(said, format!("{} wants 10.89.0.7:80", a.ip));
            let gateway = network.gateway();
            let name = inside(&a.netns_path, move || (udp_greeting((gateway, 53)), greeting((gateway, 53)))).await;
            assert_eq!(
                (name.0.expect("DNS over UDP"), name.1.expect("over TCP")),
                (a.ip.to_string(), a.ip.to_string())
            );
            assert_eq!(call(&a, OUTSIDE_IP, 80).await.expect("the outside"), HOST_IP.to_string());
            assert!(inside(&a.netns_path, || udp_greeting((OUTSIDE_IP, 81))).await.is_ok(), "the outside over UDP");
            assert!(greeting((HOST_IP, 8080)).is_err(), "and it is still sheltered");
            network.close().await.expect("closes");
        });
    }
}

#[test]
fn a_connection_to_what_nobody_serves_is_refused() {
    on_a_host(|world| async move {
        let network = world.open().await;
        proxy(&network).await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let service = Ipv4Addr::new(10, 89, 0, 7);
        let standing = inside(&a.netns_path, move || std::net::TcpStream::connect((service, 80))).await;
        let refused = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        network.set_served([(service, [81].into())].into()).await.expect("it is noted");
        assert!(call(&a, service, 80).await.is_err_and(refused), "as by a host on which nobody listens");
        assert!(call(&a, service, 82).await.is_err_and(refused), "a port of which nobody ever spoke");
        call(&a, service, 81).await.expect("another port");
        call(&a, Ipv4Addr::new(10, 89, 0, 8), 80).await.expect("an address of which nothing is known");
        // This stays so when the rules are loaded again, even together with others.
        network.repair().await.expect("the rules are loaded");
        let b = network.attach("b", &[]).await.expect("attaches");
        assert!(call(&b, service, 80).await.is_err_and(refused));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut standing.expect("it was served"), &mut said).expect("it goes on");
        assert!(said.contains("wants 10.89.0.7:80"), "{said}");
        network.set_served([(service, [80].into())].into()).await.expect("it is noted");
        call(&a, service, 80).await.expect("somebody serves again");
        // Whoever takes the network over does not know what was refused, and sets it anew.
        network.set_served([(service, [81].into())].into()).await.expect("it is noted");
        drop(network);
        let network = Network::open(world.options("t0"), &ids(&["a", "b"])).await.expect("opens again");
        network.set_served([(service, [80].into())].into()).await.expect("it is noted");
        call(&a, service, 80).await.expect("somebody serves again");
        network.close().await.expect("closes");
    });
}

#[test]
fn only_redirected_connections_reach_the_proxy() {
    on_a_host(|world| async move {
        let network = world.open().await;
        proxy(&network).await;
        let a = network.attach("a", &[]).await.expect("attaches");
        assert!(call(&a, network.gateway(), PROXY_PORT).await.is_err(), "a loop of the proxy to itself");
        assert!(call(&a, Ipv4Addr::new(10, 89, 16, 1), 80).await.is_err(), "beyond the range");
        let service = Ipv4Addr::new(10, 89, 0, 1);
        assert!(inside(&a.netns_path, move || udp_greeting((service, 80))).await.is_err(), "UDP is not redirected");
        assert!(greeting((service, 80)).is_err(), "the host itself has no service addresses");
        network.close().await.expect("closes");
    });
}

#[test]
fn the_outside_is_reached_under_the_address_of_the_host() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        world.outside(|| greeter((OUTSIDE_IP, 80))).await;
        assert_eq!(call(&a, OUTSIDE_IP, 80).await.expect("reached"), HOST_IP.to_string());
        network.close().await.expect("closes");
    });
}
