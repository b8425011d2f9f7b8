//! Texts of `/etc/resolv.conf` and `/etc/hosts` for containers, and the reading of the host's `resolv.conf`. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::dns::ZONE;

/// Limit of the C library, which never asks more.
const UPSTREAMS_MAX: usize = 3;

/// Content of a container's `/etc/resolv.conf`: `web` and `web.other` are completed to `web.NAMESPACE.internal` and
/// `web.other.internal`. `ndots:2` makes resolvers try the local zone before they ask the outside for `web.other`.
#[must_use]
pub fn resolv_conf(gateway: Ipv4Addr, namespace: &str) -> String {
    format!("nameserver {gateway}\nsearch {namespace}.{ZONE} {ZONE}\noptions ndots:2 timeout:3 attempts:2\n")
}

/// Content of a container's `/etc/hosts`.
#[must_use]
pub fn hosts_file(ip: Ipv4Addr, hostname: &str, more: &BTreeMap<String, Ipv4Addr>) -> String {
    let own = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{ip} {hostname}\n");
    more.iter().fold(own, |text, (name, ip)| text + &format!("{ip} {name}\n"))
}

/// Name servers of a `resolv.conf`, in order; `exclude` is our own address, which would make a loop.
#[must_use]
pub fn upstreams_of(resolv_conf: &str, exclude: IpAddr) -> Vec<SocketAddr> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    servers.filter(|ip| *ip != exclude).take(UPSTREAMS_MAX).map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_completes_short_names() {
        let text = resolv_conf(Ipv4Addr::new(10, 88, 0, 1), "shop");
        assert!(text.starts_with("nameserver 10.88.0.1\nsearch shop.internal internal\n"), "{text}");
    }

    #[test]
    fn upstreams_are_read_in_order_without_ourselves() {
        let text = "# c\nnameserver 10.0.0.1\nnameserver bad\n nameserver ::1 # x\nsearch a\nnameserver 10.88.0.1\noptions x\n";
        let found = upstreams_of(text, IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1)));
        assert_eq!(found, ["10.0.0.1:53".parse().expect("literal"), "[::1]:53".parse().expect("literal")]);
        assert!(upstreams_of("", IpAddr::V4(Ipv4Addr::LOCALHOST)).is_empty());
    }
}
