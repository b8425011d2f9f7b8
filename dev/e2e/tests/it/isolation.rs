//! What a container may not see, reach or do with default settings; and two platforms on one machine.

use crate::{shell, stock};
use heptad_e2e::Platform;
use std::net::{SocketAddr, TcpListener};

/// Whether a container of the service can open a connection.
fn reaches(platform: &Platform, service: &str, address: SocketAddr) -> bool {
    let line = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{}/{}'", address.ip(), address.port());
    platform.shell(service, &line).0 == 0
}

/// The host's own address on the way out, if it has one: asked of the routing table, nothing is sent.
fn host_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    match socket.connect("192.0.2.1:9") {
        Ok(()) => socket.local_addr().expect("an address").ip(),
        // A machine without a way out still has its loopback.
        Err(_) => [127, 0, 0, 1].into(),
    }
}

fn address_of(platform: &Platform, service: &str) -> SocketAddr {
    *platform.containers(service)[0].addresses.get(&8080).expect("it has an address")
}

fn service_address(platform: &Platform, service: &str) -> SocketAddr {
    let shown = platform.ok(&["get", "service", service, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let address = shown["object"]["address"].as_str().expect("it has an address");
    SocketAddr::new(address.parse().expect("an IP address"), 8080)
}

#[test]
fn a_container_sees_and_reaches_nothing_that_is_not_its_own() {
    let platform = Platform::start(&[]);
    let secret = platform.write("data/secret", "of the platform");
    platform.apply(&[shell("box", "sleep 100000", ""), stock("web", "")].join("---\n"));
    let run = |line: &str| platform.shell("box", line);
    for dir in ["/root", "/home", "/run"] {
        assert_eq!(run(&format!("ls -A {dir} 2>/dev/null")).1, "", "content of {dir}");
    }
    for file in [secret.as_str(), &platform.socket().display().to_string()] {
        assert_ne!(run(&format!("cat {file} 2>/dev/null || test -S {file}")).0, 0, "{file}");
    }
    assert_eq!(run("stat -c %F /etc/shadow"), (0, "character special file\n".to_owned()), "/etc/shadow is masked");
    assert_eq!(run("id -u; id -g; id -G"), (0, "65534\n65534\n65534\n".to_owned()));
    let status = run("cat /proc/self/status").1;
    for line in [
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    assert_ne!(run("touch /made 2>/dev/null || touch /etc/made 2>/dev/null || touch /usr/made 2>/dev/null").0, 0);
    assert_eq!(run("touch /tmp/made").0, 0, "its own /tmp");
    let host_tmp = tempfile::NamedTempFile::new_in("/tmp").expect("a file");
    assert_ne!(run(&format!("test -e {}", host_tmp.path().display())).0, 0, "/tmp is the container's own");
    let processes = run("ls -d /proc/[0-9]* | wc -l").1.trim().parse::<u32>().expect("a number");
    assert!(processes < 10, "it sees {processes} processes");
    assert_eq!(run("ls /sys/class/net | tr '\\n' ' '").1, "eth0 lo ");
    assert_ne!(run("unshare --user true 2>/dev/null || mount -t tmpfs none /tmp 2>/dev/null").0, 0);
}

#[test]
fn a_container_reaches_services_and_nothing_else_on_this_machine() {
    let platform = Platform::start(&[]);
    platform.apply(&[shell("box", "sleep 100000", ""), stock("web", "")].join("---\n"));
    let on_host = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = on_host.local_addr().expect("an address").port();
    assert!(reaches(&platform, "box", service_address(&platform, "web")), "the service is reached");
    let gateway = platform.shell("box", "sed -n 's/^nameserver //p' /etc/resolv.conf").1;
    let gateway: std::net::IpAddr = gateway.trim().parse().unwrap_or_else(|_| panic!("no name server in {gateway:?}"));
    for (what, address) in [
        ("the API", platform.api),
        ("the API through the bridge", SocketAddr::new(gateway, platform.api.port())),
        ("the API through the host's address", SocketAddr::new(host_address(), platform.api.port())),
        ("the ingress", SocketAddr::new(gateway, platform.ingress.port())),
        ("a service of the host on the bridge", SocketAddr::new(gateway, port)),
        ("a service of the host", SocketAddr::new(host_address(), port)),
        ("the proxy's own port", SocketAddr::new(gateway, 15_001)),
        ("another container", address_of(&platform, "web")),
    ] {
        assert!(!reaches(&platform, "box", address), "{what} is reached at {address}");
    }
}

#[test]
fn two_platforms_on_one_machine_do_not_touch_each_other() {
    let (mut a, b) = (Platform::start(&[]), Platform::start(&[]));
    assert_ne!(a.machine().instance(), b.machine().instance());
    for (platform, replicas) in [(&a, 2), (&b, 1)] {
        platform
            .apply(&[shell("box", "sleep 100000", ""), stock("web", &format!("replicas: {replicas}\n"))].join("---\n"));
    }
    assert_eq!((a.containers("web").len(), b.containers("web").len()), (2, 1));
    for (from, to) in [(&a, &b), (&b, &a)] {
        assert!(reaches(from, "box", service_address(from, "web")));
        assert!(!reaches(from, "box", address_of(to, "web")), "a container of the other platform");
        assert!(!reaches(from, "box", SocketAddr::new(service_address(to, "web").ip(), 8080)) || same_range(&a, &b));
    }
    let of_b = b.machine().container_processes();
    a.ok(&["delete", "service", "web", "box"]);
    assert_eq!(a.machine().container_processes(), []);
    assert_eq!(a.stop(), Some(0));
    a.machine().remove();
    assert_eq!(b.machine().container_processes(), of_b, "the other platform goes on");
    b.ok(&["mesh", "call", "box", "web"]);
}

/// Whether both happen to give the same address to the service: then each container reaches its own.
fn same_range(a: &Platform, b: &Platform) -> bool {
    service_address(a, "web") == service_address(b, "web")
}
