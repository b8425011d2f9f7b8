//! What the caller chooses and gets: plain values, no behaviour beyond checks.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the network of one platform instance is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Short id of the platform instance, 1 to 8 of `[a-z0-9]`; names the bridge `hep-ID` and the tables `heptad_ID`.
    pub instance: String,
    /// Directory of the records and pinned namespaces; should not survive a reboot (below `/run`).
    pub dir: PathBuf,
    /// Range of the containers' addresses, /16 to /29; `None` chooses a /24 that is free on this host.
    pub subnet: Option<Ipv4Net>,
    /// Range of the virtual service addresses; `None` chooses a /20 that is free on this host.
    pub service_cidr: Option<Ipv4Net>,
    /// MTU of bridge and containers; `None` takes that of the interface with the default route.
    pub mtu_bytes: Option<u32>,
    /// TCP port on the bridge address at which the node's proxy listens for redirected connections.
    pub proxy_port: u16,
    /// Port on the bridge address at which the DNS server listens; if it is not 53, port 53 is redirected to it.
    pub dns_port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance: "heptad".into(),
            dir: PathBuf::from("/run/heptad/net"),
            subnet: None,
            service_cidr: None,
            mtu_bytes: None,
            proxy_port: 15001,
            dns_port: 53,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<()> {
        let id = &self.instance;
        if id.is_empty() || id.len() > 8 || !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(invalid("instance", id, "1 to 8 of [a-z0-9]"));
        }
        if let Some(subnet) = self.subnet.filter(|net| !(16..=29).contains(&net.prefix_len())) {
            return Err(invalid("subnet", &subnet.to_string(), "a prefix length from 16 to 29"));
        }
        if let Some(cidr) = self.service_cidr.filter(|net| !(8..=30).contains(&net.prefix_len())) {
            return Err(invalid("service_cidr", &cidr.to_string(), "a prefix length from 8 to 30"));
        }
        if let Some(mtu) = self.mtu_bytes.filter(|mtu| !(576..=65_535).contains(mtu)) {
            return Err(invalid("mtu_bytes", &mtu.to_string(), "576 to 65535"));
        }
        if self.proxy_port == 0 || self.proxy_port == 53 {
            return Err(invalid("proxy_port", &self.proxy_port.to_string(), "a port other than 0 and 53"));
        }
        if self.dns_port == 0 || self.dns_port == self.proxy_port {
            return Err(invalid("dns_port", &self.dns_port.to_string(), "a port other than 0 and the proxy's"));
        }
        Ok(())
    }

    pub(crate) fn bridge(&self) -> String {
        format!("hep-{}", self.instance)
    }

    pub(crate) fn netns_path(&self, id: &str) -> PathBuf {
        self.dir.join("ns").join(id)
    }
}

fn invalid(field: &'static str, got: &str, expected: &'static str) -> Error {
    Error::InvalidOption { field, got: got.to_owned(), expected }
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host that leads to a port of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// Port on every address of the host.
    pub host_port: u16,
    /// Port inside the container.
    pub container_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// How a container may communicate with the world outside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// It may open connections to addresses outside.
    pub reaches: bool,
    /// Its published ports may be reached, and its address by the host's processes of other users.
    pub reached: bool,
}

impl Default for Outside {
    fn default() -> Self {
        Self { reaches: true, reached: true }
    }
}

/// The network of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Container id.
    pub id: String,
    /// Pinned network namespace: goes into the OCI runtime's `linux.namespaces[network].path`.
    pub netns_path: PathBuf,
    /// The container's address.
    pub ip: Ipv4Addr,
    /// Prefix length of the node's subnet.
    pub prefix_len: u8,
    /// The bridge address: default gateway, DNS server and proxy of the container.
    pub gateway: Ipv4Addr,
    /// Host side of the veth pair.
    pub host_link: String,
    /// MTU of the container's `eth0`.
    pub mtu_bytes: u32,
    /// Published ports.
    pub host_ports: Vec<HostPort>,
    /// How it may communicate with the outside world.
    #[serde(default)]
    pub outside: Outside,
}

/// The id becomes a file name below `dir`, so it must not lead elsewhere.
pub(crate) fn check_container_id(id: &str) -> Result<()> {
    let bytes_ok = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    let first_ok = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if bytes_ok && first_ok && id.len() <= 128 && Path::new(id).components().count() == 1 {
        return Ok(());
    }
    Err(Error::InvalidContainerId { id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_cannot_leave_the_directory() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "a\0b", &"x".repeat(129)] {
            assert!(check_container_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "Web_2.x", &"x".repeat(128)] {
            assert!(check_container_id(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn options_are_checked_with_the_field_named() {
        assert!(Options::default().check().is_ok());
        let long = Options { instance: "ninechars".into(), ..Options::default() };
        assert!(long.check().is_err_and(|e| e.to_string().contains("instance")));
        let clash = Options { dns_port: 15001, ..Options::default() };
        assert!(clash.check().is_err_and(|e| e.to_string().contains("dns_port")));
        let wide = Options { subnet: "10.0.0.0/8".parse().ok(), ..Options::default() };
        assert!(wide.check().is_err_and(|e| e.to_string().contains("subnet")));
    }
}
