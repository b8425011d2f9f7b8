//! What containers must not reach: each other, the host, and addresses that are not theirs.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use heptad_net::{Attachment, Outside, Protocol};

use crate::world::{
    HOST_IP, OUTSIDE_IP, blocking, eventually, greeter, greeting, inside, on_a_host, output, port, process, run,
    udp_greeter, udp_greeting,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// How long to wait for what must arrive.
const WAIT: Duration = Duration::from_secs(30);

async fn tcp(from: &Attachment, ip: Ipv4Addr, port: u16) -> io::Result<String> {
    inside(&from.netns_path, move || greeting((ip, port))).await
}

async fn udp(from: &Attachment, ip: Ipv4Addr, port: u16) -> io::Result<String> {
    inside(&from.netns_path, move || udp_greeting((ip, port))).await
}

#[test]
fn containers_do_not_reach_each_other() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let b = network.attach("b", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&b.netns_path, || {
            greeter((ANY, 80));
            udp_greeter((ANY, 80));
        })
        .await;
        assert_eq!(greeting((b.ip, 80)).expect("the node itself does"), network.gateway().to_string());
        assert!(tcp(&a, b.ip, 80).await.is_err());
        assert!(udp(&a, b.ip, 80).await.is_err());
        assert!(tcp(&a, HOST_IP, 8080).await.is_err(), "nor by a published port");
        assert!(tcp(&a, network.gateway(), 8080).await.is_err());
        // By way of the gateway instead of the neighbour's own frame.
        let (ok, text) = process(&a, &["ip", "route", "add", &b.ip.to_string(), "via", &a.gateway.to_string()]).await;
        assert!(ok, "{text}");
        assert!(tcp(&a, b.ip, 80).await.is_err(), "nor through routing");
        let heard = inside(&b.netns_path, || UdpSocket::bind((ANY, 90)).expect("a socket")).await;
        heard.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        say(&a, a.ip, (b.ip, 90)).await;
        assert!(heard.recv(&mut [0; 8]).is_err(), "not even one way");
        network.close().await.expect("closes");
    });
}

#[test]
fn containers_do_not_reach_listeners_of_the_host() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        greeter((ANY, 9000));
        udp_greeter((ANY, 9000));
        assert!(greeting((HOST_IP, 9000)).is_ok() && udp_greeting((HOST_IP, 9000)).is_ok(), "they listen");
        for ip in [network.gateway(), HOST_IP] {
            assert!(tcp(&a, ip, 9000).await.is_err(), "{ip}");
            assert!(udp(&a, ip, 9000).await.is_err(), "{ip}");
        }
        greeter((Ipv4Addr::LOCALHOST, 9001));
        // With rights of its own, a container can send packets with loopback destinations to the gateway.
        for rule in [
            ["link", "set", "lo", "down"].as_slice(),
            &["route", "add", "127.0.0.1", "via", "10.88.0.1", "dev", "eth0"],
        ] {
            process(&a, &[&["ip"], rule].concat()).await;
        }
        process(&a, &["sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1"]).await;
        assert!(tcp(&a, Ipv4Addr::LOCALHOST, 9001).await.is_err(), "loopback of the host");
        network.close().await.expect("closes");
    });
}

#[test]
fn ipv6_is_no_way_around_the_rules() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        greeter((Ipv6Addr::UNSPECIFIED, 9000));
        process(&a, &["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]).await;
        process(&a, &["ip", "-6", "addr", "add", "fd99::2/64", "dev", "eth0", "nodad"]).await;
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", network.bridge_name()), "0")
            .expect("IPv6 on");
        run("ip", &["-6", "addr", "add", "fd99::1/64", "dev", network.bridge_name(), "nodad"]);
        let host: SocketAddr = "[fd99::1]:9000".parse().expect("a literal");
        assert!(eventually(|| greeting(host).is_ok()), "it listens");
        assert!(inside(&a.netns_path, move || greeting(host)).await.is_err());
        network.close().await.expect("closes");
    });
}

#[test]
fn an_address_that_is_not_its_own_gets_a_container_nowhere() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        let b = network.attach("b", &[]).await.expect("attaches");
        let heard = world.outside(|| UdpSocket::bind((OUTSIDE_IP, 80)).expect("a socket")).await;
        heard.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        say(&a, a.ip, (OUTSIDE_IP, 80)).await;
        heard.recv(&mut [0; 8]).expect("its own address works");
        for stolen in [b.ip, Ipv4Addr::new(10, 88, 0, 200), Ipv4Addr::new(192, 0, 2, 9), network.gateway()] {
            let (ok, text) = process(&a, &["ip", "addr", "add", &format!("{stolen}/32"), "dev", "eth0"]).await;
            assert!(ok, "{text}");
            say(&a, stolen, (OUTSIDE_IP, 80)).await;
            assert!(heard.recv(&mut [0; 8]).is_err(), "a datagram from {stolen} left the host");
        }
        // Answers meant for b still reach b, whatever a claims about its address.
        inside(&b.netns_path, || greeter((ANY, 81))).await;
        assert!(greeting((b.ip, 81)).is_ok());
        network.close().await.expect("closes");
    });
}

/// A datagram with a source address of the sender's choice.
async fn say(from: &Attachment, ip: Ipv4Addr, to: (Ipv4Addr, u16)) {
    let said = inside(&from.netns_path, move || UdpSocket::bind((ip, 0))?.send_to(b"x", to));
    said.await.expect("sent into the bridge");
}

#[test]
fn the_outside_does_not_route_into_containers() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        let ip = a.ip;
        let reached = world.outside(move || {
            run("ip", &["route", "add", "10.88.0.0/16", "via", &HOST_IP.to_string()]);
            TcpStream::connect_timeout(&SocketAddr::from((ip, 80)), Duration::from_millis(500))
        });
        assert!(reached.await.is_err());
        network.close().await.expect("closes");
    });
}

#[test]
fn a_container_can_be_kept_apart_from_the_outside() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        world.outside(|| greeter((OUTSIDE_IP, 80))).await;
        assert!(tcp(&a, OUTSIDE_IP, 80).await.is_ok() && greeting((HOST_IP, 8080)).is_ok());

        network.set_outside("a", Outside { reaches: false, reached: true }).await.expect("confined");
        assert!(tcp(&a, OUTSIDE_IP, 80).await.is_err());
        assert!(greeting((HOST_IP, 8080)).is_ok());
        network.repair().await.expect("loads all rules again");
        assert!(tcp(&a, OUTSIDE_IP, 80).await.is_err(), "also by rules that are loaded anew");

        network.set_outside("a", Outside { reaches: true, reached: false }).await.expect("sheltered");
        assert!(tcp(&a, OUTSIDE_IP, 80).await.is_ok());
        assert!(greeting((HOST_IP, 8080)).is_err(), "from the host itself");
        assert!(world.outside(|| greeting((HOST_IP, 8080))).await.is_err(), "from outside");
        assert_eq!(greeting((a.ip, 80)).expect("the node's proxy still does"), network.gateway().to_string());

        network.detach("a").await.expect("detaches");
        network.close().await.expect("closes");
    });
}

/// Connects and waits for the greeting, then stays.
fn standing(to: (Ipv4Addr, u16)) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("connects");
    stream.set_read_timeout(Some(WAIT)).expect("set");
    stream.read_exact(&mut [0; 1]).expect("a greeting");
    stream
}

/// Whether the connection has ended by its next packets.
fn has_ended(mut stream: TcpStream) -> bool {
    (0..100).any(|_| {
        let ended = stream.write_all(b"x").is_err();
        if !ended {
            thread::sleep(Duration::from_millis(20));
        }
        ended
    })
}

/// The same connection, on which an exchange still works.
fn exchanged(mut stream: TcpStream) -> TcpStream {
    stream.write_all(b"x").expect("it stands");
    stream.read_exact(&mut [0; 1]).expect("it answers");
    stream
}

/// Greets, and then echoes what it receives.
fn holder(at: (Ipv4Addr, u16)) {
    let listener = TcpListener::bind(at).expect("a listener");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(b"x");
                let _ = stream.try_clone().and_then(|mut heard| io::copy(&mut heard, &mut stream));
            });
        }
    });
}

#[test]
fn open_connections_end_when_a_policy_no_longer_allows_them() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || holder((ANY, 80))).await;
        world.outside(|| holder((OUTSIDE_IP, 80))).await;
        let go_out = || inside(&a.netns_path, || standing((OUTSIDE_IP, 80)));
        let come_in = || world.outside(|| standing((HOST_IP, 8080)));
        let (out, coming, from_host) = (go_out().await, come_in().await, standing((HOST_IP, 8080)));

        network.set_outside("a", Outside { reaches: false, reached: true }).await.expect("confined");
        assert!(blocking(move || has_ended(out)).await, "what it opened");
        let (coming, from_host) = (blocking(|| exchanged(coming)).await, blocking(|| exchanged(from_host)).await);

        network.set_outside("a", Outside { reaches: true, reached: false }).await.expect("sheltered");
        assert!(blocking(move || has_ended(coming)).await, "from outside");
        assert!(blocking(move || has_ended(from_host)).await, "from the host");
        go_out().await;
        network.close().await.expect("closes");
    });
}

#[test]
fn processes_of_other_users_of_the_host_are_callers_from_outside() {
    on_a_host(|world| async move {
        let network = world.open().await;
        let a = network.attach("a", &[port(8080, 80, Protocol::Tcp)]).await.expect("attaches");
        inside(&a.netns_path, || greeter((ANY, 80))).await;
        let ip = a.ip;
        let as_nobody = move |port: u16, ip: Ipv4Addr| {
            blocking(move || {
                let shell = format!("exec 3<>/dev/tcp/{ip}/{port} && cat <&3");
                let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
                output("setpriv", &[&user[..], &["timeout", "5", "bash", "-c", &shell]].concat()).0
            })
        };
        assert!(as_nobody(80, ip).await && as_nobody(8080, HOST_IP).await, "no policy selects it");
        network.set_outside("a", Outside { reaches: true, reached: false }).await.expect("sheltered");
        assert!(!as_nobody(80, ip).await, "at its own address");
        assert!(!as_nobody(8080, HOST_IP).await, "at its published port");
        assert!(greeting((ip, 80)).is_ok(), "the platform's own processes still do: the proxy, health checks");
        network.close().await.expect("closes");
    });
}
