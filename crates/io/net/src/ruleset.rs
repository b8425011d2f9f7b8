//! The text of the nftables transactions of one instance. Pure.
//! Two tables with one name: `inet` filters and translates what the bridge carries, `bridge` pins each port to its address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{Attachment, HostPort, Outside, pool::AddressPool};

/// Published ports, and where they lead.
const HOST_PORTS: &str = "host_ports";
/// Addresses that may not open connections to the outside world.
const CONFINED: &str = "confined";
/// Addresses that may be reached neither from the outside world nor by the host's processes of other users.
const SHELTERED: &str = "sheltered";
/// Addresses of services with their served ports: connections to other ports of these addresses are refused. Filled
/// only by `serve`: attachments say nothing about it.
const SERVICES: &str = "services";
const SERVED: &str = "served";
/// Which address is behind which port of the bridge.
const OWNERS: &str = "owners";
/// The sets and maps that have elements, by table.
const MAIN_SETS: &[(&str, &str)] = &[("map", HOST_PORTS), ("set", CONFINED), ("set", SHELTERED)];
const BRIDGE_SETS: &[(&str, &str)] = &[("set", OWNERS)];

/// Everything on which the rules depend.
#[derive(Clone, Debug)]
pub(crate) struct Ruleset {
    pub(crate) instance: String,
    pub(crate) bridge: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) service_cidr: Ipv4Net,
    pub(crate) proxy_port: u16,
    pub(crate) dns_port: u16,
    /// The user of this process: host processes of other users are callers from outside.
    pub(crate) owner_uid: u32,
}

/// Name of the host side of the veth pair of the container with this number in the subnet.
pub(crate) fn host_link(instance: &str, number: u32) -> String {
    format!("{}{number}", host_link_prefix(instance))
}

/// The common prefix of all host sides of the instance.
pub(crate) fn host_link_prefix(instance: &str) -> String {
    format!("hv{instance}-")
}

impl Ruleset {
    pub(crate) fn table(&self) -> String {
        format!("heptad_{}", self.instance)
    }

    /// Removes the table of this family, whether it exists or not.
    pub(crate) fn remove(&self, family: &str) -> String {
        let table = self.table();
        format!("table {family} {table}\ndelete table {family} {table}\n")
    }

    pub(crate) fn publish(&self, ip: Ipv4Addr, ports: &[HostPort]) -> String {
        self.lines(ports, |port| {
            format!(
                "add element inet {} {HOST_PORTS} {{ {} : {ip} . {} }}",
                self.table(),
                key(port),
                port.container_port
            )
        })
    }

    pub(crate) fn unpublish(&self, ports: &[HostPort]) -> String {
        self.lines(ports, |port| format!("delete element inet {} {HOST_PORTS} {{ {} }}", self.table(), key(port)))
    }

    /// Adds one address to, or removes it from, the sets of those that are kept apart from the outside world.
    pub(crate) fn change_outside(&self, ip: Ipv4Addr, before: Outside, after: Outside) -> String {
        let one = |set: &str, was: bool, is: bool| match (was, is) {
            (true, false) => format!("add element inet {} {set} {{ {ip} }}\n", self.table()),
            (false, true) => format!("delete element inet {} {set} {{ {ip} }}\n", self.table()),
            _ => String::new(),
        };
        one(CONFINED, before.reaches, after.reaches) + &one(SHELTERED, before.reached, after.reached)
    }

    /// Connections to these addresses are refused, as by a host on which nobody listens, except to these ports.
    pub(crate) fn serve(&self, served: &BTreeMap<Ipv4Addr, BTreeSet<u16>>) -> String {
        let table = self.table();
        let fill = |set: &str, all: Vec<String>| {
            let flush = format!("flush set inet {table} {set}\n");
            let add = || format!("add element inet {table} {set} {{ {} }}\n", all.join(", "));
            if all.is_empty() { flush } else { flush + &add() }
        };
        let ports = served.iter().flat_map(|(ip, ports)| ports.iter().map(move |port| format!("{ip} . {port}")));
        fill(SERVICES, served.keys().map(ToString::to_string).collect()) + &fill(SERVED, ports.collect())
    }

    fn lines(&self, ports: &[HostPort], line: impl Fn(&HostPort) -> String) -> String {
        ports.iter().map(|port| line(port) + "\n").collect()
    }

    /// The table of filters and translations.
    pub(crate) fn main_table<'a>(&self, containers: impl IntoIterator<Item = &'a Attachment>) -> Load {
        let containers: Vec<_> = containers.into_iter().collect();
        let shape = shape_of(&self.main_body(&[], ""));
        Load { family: "inet", table: self.table(), sets: MAIN_SETS, body: self.main_body(&containers, &shape), shape }
    }

    fn main_body(&self, containers: &[&Attachment], shape: &str) -> String {
        let Self { bridge, subnet, gateway, service_cidr, proxy_port, dns_port, .. } = self;
        let (table, filters) = (self.table(), self.filters());
        let published = |c: &&Attachment| {
            let ip = c.ip;
            c.host_ports
                .iter()
                .map(move |port| format!("{} : {ip} . {}", key(port), port.container_port))
                .collect::<Vec<_>>()
        };
        let ports = elements(containers.iter().flat_map(published));
        let confined = elements(containers.iter().filter(|c| !c.outside.reaches).map(|c| c.ip.to_string()));
        let sheltered = elements(containers.iter().filter(|c| !c.outside.reached).map(|c| c.ip.to_string()));
        let dns_redirect = if *dns_port == 53 {
            String::new()
        } else {
            format!(
                "iifname \"{bridge}\" ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns_port}"
            )
        };
        format!(
            r#"table inet {table} {{
  map {HOST_PORTS} {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    {ports}
  }}
  set {CONFINED} {{
    type ipv4_addr
    {confined}
  }}
  set {SHELTERED} {{
    type ipv4_addr
    {sheltered}
  }}
  set {SERVICES} {{
    type ipv4_addr
  }}
  set {SERVED} {{
    type ipv4_addr . inet_service
  }}
  chain check_source {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{bridge}" accept
    meta nfproto ipv6 drop
    ip daddr 127.0.0.0/8 drop
    ip saddr {gateway} drop
    ip saddr != {subnet} drop
  }}
  chain redirect_in {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{bridge}" meta l4proto tcp ip daddr @{SERVICES} ip daddr . tcp dport != @{SERVED} accept
    iifname "{bridge}" ip daddr {service_cidr} meta l4proto tcp redirect to :{proxy_port}
    {dns_redirect}
    iifname != "{bridge}" meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @{HOST_PORTS}
  }}
  chain redirect_local {{
    type nat hook output priority -100; policy accept;
    meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @{HOST_PORTS}
  }}
  chain masquerade_out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
  }}
{filters}  chain {shape} {{
  }}
}}
"#
        )
    }

    /// The chains that decide which traffic of the bridge may pass: to the node, through it, and from it.
    ///
    /// The opener of a connection decides, never the direction of one packet: answers to what a sheltered container
    /// asks are not calls to it. Sets apply to open connections as well, so these rules come before the general
    /// acceptance.
    fn filters(&self) -> String {
        let Self { bridge, gateway, service_cidr, proxy_port, dns_port, owner_uid, .. } = self;
        format!(
            r#"  chain to_node {{
    type filter hook input priority filter; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport {dns_port} accept
    ct status dnat tcp dport {proxy_port} accept
    ip daddr {gateway} icmp type echo-request accept
    reject with icmpx type admin-prohibited
  }}
  chain through_node {{
    type filter hook forward priority filter; policy accept;
    iifname != "{bridge}" oifname != "{bridge}" accept
    iifname "{bridge}" meta l4proto tcp ip daddr @{SERVICES} ip daddr . tcp dport != @{SERVED} reject with tcp reset
    iifname "{bridge}" oifname "{bridge}" reject with icmpx type admin-prohibited
    ct state related accept
    ct original ip saddr @{CONFINED} goto turn_away
    ct reply ip saddr @{SHELTERED} goto turn_away
    ct state established accept
    iifname "{bridge}" ip daddr {service_cidr} reject with icmpx type admin-prohibited
    iifname "{bridge}" ip saddr @{CONFINED} goto turn_away
    iifname "{bridge}" accept
    ct status dnat accept
    drop
  }}
  chain from_node {{
    type filter hook output priority filter; policy accept;
    oifname "{bridge}" ip daddr {service_cidr} reject with icmpx type host-unreachable
    ct direction reply accept
    ct state related accept
    ip daddr @{SHELTERED} ct status dnat goto turn_away
    ip daddr @{SHELTERED} meta skuid != {owner_uid} goto turn_away
  }}
  chain turn_away {{
    ct state established meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }}
"#
        )
    }

    /// The table that pins addresses to bridge ports. Without it, a container that can send raw frames could take the
    /// address, and so the identity, of a neighbour. All addresses are listed at once, so that attaching a container
    /// needs no transaction of its own.
    pub(crate) fn bridge_table(&self, pool: &AddressPool) -> Load {
        let owners = pool.all().map(|(number, ip)| format!("\"{}\" . {ip}", host_link(&self.instance, number)));
        let shape = shape_of(&self.bridge_body("", ""));
        let body = self.bridge_body(&elements(owners), &shape);
        Load { family: "bridge", table: self.table(), sets: BRIDGE_SETS, body, shape }
    }

    fn bridge_body(&self, elements: &str, shape: &str) -> String {
        let table = self.table();
        let ports = host_link_prefix(&self.instance);
        format!(
            r#"table bridge {table} {{
  set {OWNERS} {{
    type ifname . ipv4_addr
    {elements}
  }}
  chain check_owner {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "{ports}*" accept
    ether type ip iifname . ip saddr @{OWNERS} accept
    ether type arp iifname . arp saddr ip @{OWNERS} accept
    drop
  }}
  chain {shape} {{
  }}
}}
"#
        )
    }
}

/// A whole table, and the two ways to load it. Tracked connections survive both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    family: &'static str,
    table: String,
    /// What has elements: kinds and names.
    sets: &'static [(&'static str, &'static str)],
    body: String,
    /// An empty chain whose name identifies tables that differ in more than elements.
    shape: String,
}

impl Load {
    /// Removes whatever is there and adds the table. A packet that passes its chains at that very moment may see the
    /// new ones before they are in force, and the old ones after they no longer are: a new connection to a published
    /// port then reaches the socket that only reserves it.
    pub(crate) fn replace(&self) -> String {
        let Self { family, table, body, .. } = self;
        format!("table {family} {table}\ndelete table {family} {table}\n{body}")
    }

    /// New content for the existing chains and sets, which no packet sees in part. Fails without changing anything
    /// unless the table was loaded with exactly these chains and sets.
    pub(crate) fn refill(&self) -> String {
        let Self { family, table, sets, body, shape } = self;
        let mut text = format!("flush chain {family} {table} {shape}\nflush table {family} {table}\n");
        for (kind, name) in *sets {
            let _ = writeln!(text, "flush {kind} {family} {table} {name}");
        }
        text + body
    }
}

fn shape_of(body: &str) -> String {
    format!("shape_{:08x}", crc32c::crc32c(body.as_bytes()))
}

fn key(port: &HostPort) -> String {
    format!("{} . {}", port.protocol.name(), port.host_port)
}

/// nft rejects an empty list, so none is written then.
fn elements(items: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for item in items {
        let _ = write!(text, "{}{item}", if text.is_empty() { "elements = { " } else { ", " });
    }
    if text.is_empty() { text } else { text + " }" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn ruleset() -> Ruleset {
        Ruleset {
            instance: "t1".into(),
            bridge: "hep-t1".into(),
            subnet: "10.88.0.0/29".parse().expect("a literal"),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            service_cidr: "10.89.0.0/20".parse().expect("a literal"),
            proxy_port: 15001,
            dns_port: 53,
            owner_uid: 0,
        }
    }

    fn attached(port: HostPort) -> Attachment {
        Attachment {
            id: "a".into(),
            netns_path: "/run/a".into(),
            ip: Ipv4Addr::new(10, 88, 0, 2),
            prefix_len: 29,
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            host_link: "hvt1-2".into(),
            mtu_bytes: 1500,
            host_ports: vec![port],
            outside: Outside { reaches: false, reached: true },
        }
    }

    #[test]
    fn confined_addresses_are_elements_of_a_set() {
        let rules = ruleset();
        let container = attached(HostPort { host_port: 8080, container_port: 80, protocol: Protocol::Tcp });
        let text = rules.main_table([&container]).replace();
        assert_eq!(text.matches("elements = { 10.88.0.2 }").count(), 1, "{text}");
        let open = rules.change_outside(container.ip, container.outside, Outside::default());
        assert_eq!(open, "delete element inet heptad_t1 confined { 10.88.0.2 }\n");
        assert_eq!(rules.change_outside(container.ip, container.outside, container.outside), "");
    }

    #[test]
    fn one_rule_serves_every_service_and_ports_are_map_elements() {
        let rules = ruleset();
        let pool = AddressPool::new(rules.subnet, []);
        let port = HostPort { host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let text = rules.main_table([&attached(port)]).replace() + &rules.bridge_table(&pool).replace();
        assert_eq!(text.matches("redirect to :15001").count(), 1);
        assert!(text.contains("elements = { tcp . 8080 : 10.88.0.2 . 80 }"), "{text}");
        assert!(text.contains("\"hvt1-6\" . 10.88.0.6 }"), "{text}");
        assert!(!text.contains("th dport 53 redirect"));
    }

    #[test]
    fn only_a_table_that_differs_in_elements_alone_is_refilled() {
        let rules = ruleset();
        let port = HostPort { host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
        let shape = |load: Load| load.refill().lines().next().map(str::to_owned).expect("a line");
        let filled = rules.main_table([&attached(port)]);
        assert_eq!(shape(filled.clone()), shape(rules.main_table([])));
        assert!(shape(filled.clone()).starts_with("flush chain inet heptad_t1 shape_"), "{}", filled.refill());
        assert!(filled.body.contains(&format!("chain {} {{", filled.shape)), "{filled:?}");
        let other = Ruleset { proxy_port: 15002, ..rules.clone() };
        assert_ne!(shape(filled.clone()), shape(other.main_table([])));
        let refill = filled.refill();
        for set in ["map inet heptad_t1 host_ports", "set inet heptad_t1 confined", "set inet heptad_t1 sheltered"] {
            assert!(refill.contains(&format!("flush {set}\n")), "{refill}");
        }
        assert!(!refill.contains("delete") && filled.replace().contains("delete table inet heptad_t1\n"));
    }

    #[test]
    fn what_nobody_serves_is_refused_before_it_is_redirected() {
        let rules = ruleset();
        let text = rules.main_table([]).replace();
        let refused = text.find("tcp dport != @served accept").expect("a rule");
        assert!(refused < text.find("redirect to :15001").expect("a rule"), "{text}");
        let served = [([10, 89, 0, 1].into(), [80, 81].into()), ([10, 89, 0, 2].into(), [].into())].into();
        let filled = "flush set inet heptad_t1 services\n\
                      add element inet heptad_t1 services { 10.89.0.1, 10.89.0.2 }\n\
                      flush set inet heptad_t1 served\n\
                      add element inet heptad_t1 served { 10.89.0.1 . 80, 10.89.0.1 . 81 }\n";
        assert_eq!(rules.serve(&served), filled);
        let empty = "flush set inet heptad_t1 services\nflush set inet heptad_t1 served\n";
        assert_eq!(rules.serve(&BTreeMap::new()), empty);
    }

    #[test]
    fn another_dns_port_is_redirected() {
        let rules = Ruleset { dns_port: 5353, ..ruleset() };
        let text = rules.main_table([]).replace();
        assert!(text.contains("th dport 53 redirect to :5353"), "{text}");
        assert!(!text.contains("elements"), "{text}");
    }

    #[test]
    fn elements_are_added_and_deleted_one_by_one() {
        let port = HostPort { host_port: 53, container_port: 5353, protocol: Protocol::Udp };
        let rules = ruleset();
        let ip = Ipv4Addr::new(10, 88, 0, 3);
        assert_eq!(
            rules.publish(ip, &[port]),
            "add element inet heptad_t1 host_ports { udp . 53 : 10.88.0.3 . 5353 }\n"
        );
        assert_eq!(rules.unpublish(&[port]), "delete element inet heptad_t1 host_ports { udp . 53 }\n");
    }
}
