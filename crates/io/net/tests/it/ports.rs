//! Published ports: reached from everywhere, exclusive, and gone when withdrawn.

use std::net::{Ipv4Addr, TcpListener};

use heptad_net::{Error, Protocol};

use crate::world::{
    HOST_IP, OUTSIDE_IP, blocking, greeter, greeting, inside, on_a_host, output, port, udp_greeter, udp_greeting,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[test]
fn a_published_port_is_reached_from_the_host_and_from_outside() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let ports = [port(8080, 80, Protocol::Tcp), port(8080, 81, Protocol::Udp)];
        let web = network.attach("web", &ports).await.expect("attaches");
        assert_eq!(web.host_ports, ports);
        inside(&web.netns_path, || {
            greeter((ANY, 80));
            udp_greeter((ANY, 81));
        })
        .await;
        for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9), HOST_IP, network.gateway()] {
            assert!(greeting((ip, 8080)).is_ok(), "tcp {ip}: {:?}", greeting((ip, 8080)));
            assert!(udp_greeting((ip, 8080)).is_ok(), "udp {ip}");
        }
        let outside = world.outside(|| (greeting((HOST_IP, 8080)), udp_greeting((HOST_IP, 8080)))).await;
        assert_eq!(outside.0.expect("tcp"), OUTSIDE_IP.to_string(), "the container sees the real client");
        assert_eq!(outside.1.expect("udp"), OUTSIDE_IP.to_string());
        let curl = blocking(|| output("bash", &["-c", "exec 3<>/dev/tcp/localhost/8080 && cat <&3"])).await;
        assert!(curl.0, "a real process: {}", curl.1);
        network.close().await.expect("closes");
        assert!(greeting((HOST_IP, 8080)).is_err());
    });
}

#[test]
fn ports_are_added_and_withdrawn_one_by_one() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8001, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || {
            greeter((ANY, 80));
            greeter((ANY, 90));
        })
        .await;
        network.publish("a", port(8002, 80, Protocol::Tcp)).await.expect("publishes");
        network.publish("a", port(8002, 80, Protocol::Tcp)).await.expect("again is fine");
        assert!(greeting((HOST_IP, 8001)).is_ok() && greeting((HOST_IP, 8002)).is_ok());
        network.unpublish("a", port(8001, 80, Protocol::Tcp)).await.expect("withdraws");
        network.unpublish("a", port(8001, 80, Protocol::Tcp)).await.expect("again is fine");
        assert!(greeting((HOST_IP, 8001)).is_err() && greeting((HOST_IP, 8002)).is_ok());
        network.attach("a", &[port(8002, 90, Protocol::Tcp)]).await.expect("another port behind the same number");
        assert!(greeting((HOST_IP, 8002)).is_ok());
        assert!(TcpListener::bind((ANY, 8002)).is_err(), "still held");
        network.detach("a").await.expect("detaches");
        TcpListener::bind((ANY, 8002)).expect("free again");
        network.close().await.expect("closes");
    });
}

#[test]
fn a_port_belongs_to_one_container_and_to_no_process() {
    on_a_host(|world| async move {
        let network = world.open().await;
        network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        let second = network.attach("b", &[port(8080, 80, Protocol::Tcp)]).await;
        assert!(matches!(&second, Err(Error::HostPortPublished { holder, .. }) if holder == "a"), "{second:?}");
        network.attach("b", &[port(8080, 80, Protocol::Udp)]).await.expect("the other protocol is free");
        assert!(TcpListener::bind((ANY, 8080)).is_err(), "a process cannot take the port");
        let twice = [port(9, 80, Protocol::Tcp), port(9, 81, Protocol::Tcp)];
        assert!(matches!(network.attach("c", &twice).await, Err(Error::HostPortPublished { .. })));
        assert_eq!(network.list().await.len(), 2);
        network.close().await.expect("closes");
    });
}

#[test]
fn rules_that_someone_flushed_come_back() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8001, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        assert!(output("nft", &["flush", "ruleset"]).0);
        network.publish("a", port(8002, 80, Protocol::Tcp)).await.expect("a change brings all rules back");
        assert!(greeting((HOST_IP, 8001)).is_ok() && greeting((HOST_IP, 8002)).is_ok());
        assert!(output("nft", &["flush", "ruleset"]).0);
        network.repair().await.expect("repairs");
        assert!(greeting((HOST_IP, 8001)).is_ok() && greeting((HOST_IP, 8002)).is_ok());
        network.close().await.expect("closes");
    });
}
