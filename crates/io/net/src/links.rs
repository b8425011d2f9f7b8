//! Links, addresses and routes of one network namespace through rtnetlink. Knows no container and no file.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, State},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope},
    },
};
use tokio::time::sleep;

use crate::{Error, Result};

/// MTU of Ethernet, for hosts without a default route.
const MTU_BYTES_DEFAULT: u32 = 1500;
/// Name of the container's link.
const INSIDE_LINK: &str = "eth0";
const CARRIER_WAIT_MS_MAX: u64 = 2_000;
const CARRIER_POLL_MS: u64 = 1;

/// The links of one network namespace; the connection ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    handle: Handle,
}

/// One end of a veth pair to be made, the other one is `eth0` in another namespace.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_link: &'a str,
    pub(crate) bridge: u32,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) ip: Ipv4Addr,
    pub(crate) mtu_bytes: u32,
}

/// Derived from the address, so that a neighbour entry that outlives a container is right for the next one.
pub(crate) fn mac_of(ip: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = ip.octets();
    vec![0x02, 0x68, a, b, c, d]
}

impl Links {
    /// Those of the calling thread's namespace.
    pub(crate) fn open() -> Result<Self> {
        Self::open_on(&tokio::runtime::Handle::current())
    }

    /// Like `open`, from a thread outside the runtime that is to drive the connection.
    pub(crate) fn open_on(runtime: &tokio::runtime::Handle) -> Result<Self> {
        let _entered = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::io("open", "netlink socket"))?;
        runtime.spawn(connection);
        Ok(Self { handle })
    }

    pub(crate) async fn index(&self, name: &str) -> Result<Option<u32>> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, Errno::ENODEV) => Ok(None),
            Err(error) => Err(Error::netlink("look up link", name)(error)),
        }
    }

    pub(crate) async fn existing(&self, name: &str) -> Result<u32> {
        self.index(name).await?.ok_or_else(|| Error::NoLink { link: name.to_owned() })
    }

    /// Creates the bridge if it is absent; sets address and MTU in any case.
    pub(crate) async fn ensure_bridge(&self, name: &str, ip: Ipv4Addr, prefix_len: u8, mtu_bytes: u32) -> Result<u32> {
        if self.index(name).await?.is_none() {
            // The hardware address is set explicitly: otherwise it changes with the ports, and containers lose their
            // gateway.
            let bridge = LinkBridge::new(name).address(mac_of(ip)).mcast_snooping(false).build();
            self.handle.link().add(bridge).execute().await.map_err(Error::netlink("create bridge", name))?;
        }
        let index = self.existing(name).await?;
        let change = LinkUnspec::new_with_index(index).mtu(mtu_bytes).build();
        self.handle.link().change(change).execute().await.map_err(Error::netlink("set MTU of bridge", name))?;
        self.add_address(index, ip, prefix_len).await?;
        Ok(index)
    }

    pub(crate) async fn up(&self, index: u32) -> Result<()> {
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(up).execute().await.map_err(Error::netlink("set up link", format!("#{index}")))
    }

    async fn add_address(&self, index: u32, ip: Ipv4Addr, prefix_len: u8) -> Result<()> {
        let request = self.handle.address().add(index, ip.into(), prefix_len);
        request.execute().await.or_else(ignore(Errno::EEXIST)).map_err(Error::netlink("add address", ip.to_string()))
    }

    /// Makes the route visible to everybody who looks for a free range, and keeps such packets of the host off its
    /// default route.
    pub(crate) async fn add_link_route(&self, net: Ipv4Net, link: u32) -> Result<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(link)
            .scope(RouteScope::Link)
            .build();
        let added = self.handle.route().add(route).execute().await;
        added.or_else(ignore(Errno::EEXIST)).map_err(Error::netlink("add route", net.to_string()))
    }

    /// Creates a pair whose far end is born inside the namespace: creating it here and moving it would cost two grace
    /// periods.
    pub(crate) async fn create_veth(&self, veth: &Veth<'_>) -> Result<()> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(INSIDE_LINK)
            .address(mac_of(veth.ip))
            .mtu(veth.mtu_bytes)
            .setns_by_fd(veth.netns.as_raw_fd())
            .build();
        let pair = LinkVeth::new(veth.host_link, INSIDE_LINK)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(veth.bridge)
            .mtu(veth.mtu_bytes)
            .build();
        self.handle.link().add(pair).execute().await.map_err(Error::netlink("create veth pair", veth.host_link))
    }

    /// A port of the bridge that exchanges frames only with the bridge itself, never with other such ports.
    pub(crate) async fn isolate_port(&self, name: &str, bridge: u32) -> Result<()> {
        let index = self.existing(name).await?;
        let join = LinkUnspec::new_with_index(index).controller(bridge).build();
        self.handle.link().change(join).execute().await.map_err(Error::netlink("attach to the bridge", name))?;
        let port = LinkBridgePort::new(index).isolated(true).hairpin(false).up().build();
        self.handle.link().change(port).execute().await.map_err(Error::netlink("isolate bridge port", name))
    }

    /// Address, default route and loopback of a container, called on its own links.
    pub(crate) async fn configure_inside(&self, ip: Ipv4Addr, prefix_len: u8, gateway: Ipv4Addr) -> Result<()> {
        let link = self.existing(INSIDE_LINK).await?;
        self.add_address(link, ip, prefix_len).await?;
        self.up(link).await?;
        self.up(self.existing("lo").await?).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
        let added = self.handle.route().add(route).execute().await;
        added.map_err(Error::netlink("add default route by", gateway.to_string()))?;
        self.wait_up(INSIDE_LINK).await
    }

    /// Waits until the kernel has noticed that the link has a carrier. The kernel does so in the background and drops
    /// what is sent before. Without this wait, a container's first packet is lost and resent only a second later.
    pub(crate) async fn wait_up(&self, name: &str) -> Result<()> {
        for _ in 0..CARRIER_WAIT_MS_MAX / CARRIER_POLL_MS {
            let link = self.handle.link().get().match_name(name).execute().try_next().await;
            let link = link.map_err(Error::netlink("look up link", name))?;
            if link.as_ref().is_some_and(is_operational) {
                return Ok(());
            }
            sleep(Duration::from_millis(CARRIER_POLL_MS)).await;
        }
        tracing::warn!(link = name, CARRIER_WAIT_MS_MAX, "network link has no carrier yet");
        Ok(())
    }

    /// Removes the link, if present. The other end of a veth pair goes with it.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let Some(index) = self.index(name).await? else { return Ok(()) };
        let deleted = self.handle.link().del(index).execute().await;
        deleted.or_else(ignore(Errno::ENODEV)).map_err(Error::netlink("delete link", name))
    }

    /// Names of the links with this prefix.
    pub(crate) async fn names_starting(&self, prefix: &str) -> Result<Vec<String>> {
        let links = self.all().await?;
        Ok(links.iter().filter_map(name_of).filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Whether the host has another bridge, and so perhaps another user of forwarding.
    pub(crate) async fn other_bridges(&self, ours: &str) -> Result<bool> {
        Ok(self.all().await?.iter().any(|link| is_bridge(link) && name_of(link) != Some(ours)))
    }

    /// Ranges that the host routes or owns, without default routes and without those of the link `ours`.
    pub(crate) async fn taken(&self, ours: Option<u32>) -> Result<Vec<Ipv4Net>> {
        let routes = self.routes().await?;
        let foreign = routes.iter().filter(|route| ours.is_none() || output_of(route) != ours);
        Ok(foreign.filter_map(destination_of).filter(|net| net.prefix_len() > 0).collect())
    }

    /// MTU of the link that leads outside.
    pub(crate) async fn outside_mtu(&self) -> Result<u32> {
        let routes = self.routes().await?;
        let defaults = routes.iter().filter(|route| route.header.destination_prefix_length == 0);
        let outputs: Vec<u32> = defaults.filter_map(output_of).collect();
        let links = self.all().await?;
        let mtus = links.iter().filter(|link| outputs.contains(&link.header.index)).filter_map(mtu_of);
        Ok(mtus.min().unwrap_or(MTU_BYTES_DEFAULT))
    }

    async fn routes(&self) -> Result<Vec<RouteMessage>> {
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = self.handle.route().get(every).execute().try_collect().await;
        routes.map_err(Error::netlink("list", "IPv4 routes"))
    }

    async fn all(&self) -> Result<Vec<LinkMessage>> {
        self.handle.link().get().execute().try_collect().await.map_err(Error::netlink("list", "links"))
    }
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn is_operational(link: &LinkMessage) -> bool {
    link.attributes.contains(&LinkAttribute::OperState(State::Up))
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Bridge)),
        _ => false,
    })
}

fn output_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn destination_of(route: &RouteMessage) -> Option<Ipv4Net> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => {
            Ipv4Net::new(*ip, route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

/// The kernel's error number, if it is one.
fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            io::Error::from(message.clone()).raw_os_error() == Some(errno as i32)
        }
        _ => false,
    }
}

fn ignore(errno: Errno) -> impl FnOnce(rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    move |error| if is(&error, errno) { Ok(()) } else { Err(error) }
}
