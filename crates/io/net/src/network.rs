//! The network of one platform instance on this node: opened (adopting what a crashed process left), and closed.
//! Attaching containers is in `attach`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, TcpListener, UdpSocket},
};

use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::{
    Attachment, Error, HostPort, Options, Protocol, Result,
    links::Links,
    netns, nft,
    options::check_container_id,
    pool::AddressPool,
    records::{Instance, Records},
    ruleset::{Load, Ruleset, host_link_prefix},
    subnet::{Purpose, choose},
    sysctl,
};

const IP_FORWARD: &str = "ipv4/ip_forward";

/// The container network of one platform instance on this node. Dropping it leaves everything in place, as a crash
/// would: a later `open` adopts it. `close` removes it.
#[derive(Debug)]
pub struct Network {
    pub(crate) options: Options,
    pub(crate) ruleset: Ruleset,
    pub(crate) links: Links,
    pub(crate) bridge: u32,
    pub(crate) mtu_bytes: u32,
    pub(crate) state: Mutex<State>,
}

/// What changes while containers come and go. One change at a time: the kernel's own lock would serialize them anyway.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) records: Records,
    instance: Instance,
    pub(crate) pool: AddressPool,
    pub(crate) containers: BTreeMap<String, Attachment>,
    pub(crate) reserved: BTreeMap<(Protocol, u16), Reservation>,
    /// Service addresses and ports at which nobody serves.
    unserved: BTreeSet<(Ipv4Addr, u16)>,
}

/// An open socket on a published port: no process of the host can take the port and then wonder why it hears nothing.
#[derive(Debug)]
#[allow(dead_code, reason = "held open, never used: translation happens before packets could reach it")]
pub(crate) enum Reservation {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// Published by an earlier process, and since then bound by another program.
    Lost,
}

impl Reservation {
    pub(crate) fn take(port: &HostPort) -> Result<Self> {
        let address = (Ipv4Addr::UNSPECIFIED, port.host_port);
        let taken = match port.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(Self::Tcp),
            Protocol::Udp => UdpSocket::bind(address).map(Self::Udp),
        };
        taken.map_err(|source| Error::HostPortTaken {
            host_port: port.host_port,
            protocol: port.protocol.name(),
            source,
        })
    }
}

impl Network {
    /// Sets the network up, or adopts that of an earlier process of the same instance: containers in `alive` keep their
    /// namespace, address and ports; what belongs to any other container is removed.
    ///
    /// # Errors
    /// If options are unusable, a tool or permission is missing, or no free range is found.
    pub async fn open(options: Options, alive: &BTreeSet<String>) -> Result<Self> {
        options.check()?;
        for id in alive {
            check_container_id(id)?;
        }
        crate::facts::check_permitted()?;
        nft::version().await?;
        let records = Records::open(&options.dir).await?;
        let links = Links::open()?;
        // Until the bridge has its address: two platforms that start together must not choose the same range.
        let _turn = netns::turn().await?;
        let kept = surviving(&options, &records, &links, alive).await?;
        let instance = settle_ranges(&options, &records, &links, kept.len()).await?;
        let pool = AddressPool::new(instance.subnet, kept.values().map(|container| container.ip));
        let network = Self::build(options, instance, records, links, pool, kept).await?;
        match network.start().await {
            Ok(()) => Ok(network),
            Err(error) => Err(network.give_up(error).await),
        }
    }

    async fn start(&self) -> Result<()> {
        prepare_host(&self.ruleset.bridge, &mut *self.state.lock().await)?;
        self.adopt_ports().await?;
        self.load_rules().await
    }

    /// A start that failed leaves nothing, unless containers run: a later start may still adopt those.
    async fn give_up(self, error: Error) -> Error {
        if self.list().await.is_empty()
            && let Err(second) = self.close().await
        {
            tracing::warn!(error = %second, "network that could not be started is not wholly removed");
        }
        error
    }

    async fn build(
        options: Options,
        instance: Instance,
        records: Records,
        links: Links,
        pool: AddressPool,
        containers: BTreeMap<String, Attachment>,
    ) -> Result<Self> {
        let name = options.bridge();
        let mtu_bytes = match options.mtu_bytes {
            Some(mtu) => mtu,
            None => links.outside_mtu().await?,
        };
        let gateway = pool.gateway();
        // Recorded before anything is made: a crash in between must not lose the ranges.
        records.put_instance(&instance)?;
        let bridge = links.ensure_bridge(&name, gateway, instance.subnet.prefix_len(), mtu_bytes).await?;
        let ruleset = Ruleset {
            instance: options.instance.clone(),
            bridge: name,
            subnet: instance.subnet,
            gateway,
            service_cidr: instance.service_cidr,
            proxy_port: options.proxy_port,
            dns_port: options.dns_port,
            owner_uid: nix::unistd::geteuid().as_raw(),
        };
        let state = State { records, instance, pool, containers, reserved: BTreeMap::new(), unserved: BTreeSet::new() };
        Ok(Self { options, ruleset, links, bridge, mtu_bytes, state: Mutex::new(state) })
    }

    /// Puts adopted veths back on the bridge and holds their published ports.
    async fn adopt_ports(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let adopted: Vec<Attachment> = state.containers.values().cloned().collect();
        for container in &adopted {
            self.links.isolate_port(&container.host_link, self.bridge).await?;
            for port in &container.host_ports {
                let reservation = Reservation::take(port).unwrap_or_else(|error| {
                    tracing::warn!(container = container.id, %error, "adopted host port is shared with another process");
                    Reservation::Lost
                });
                state.reserved.insert((port.protocol, port.host_port), reservation);
            }
        }
        Ok(())
    }

    /// The link route needs the bridge up, and the bridge goes up only after the rules stand: no moment without them.
    async fn load_rules(&self) -> Result<()> {
        let state = self.state.lock().await;
        self.load_rules_with(&state, None).await?;
        self.links.up(self.bridge).await?;
        self.links.add_link_route(self.ruleset.service_cidr, self.bridge).await
    }

    /// All rules of the instance, with one container's ports as they are about to be.
    pub(crate) async fn load_rules_with(&self, state: &State, changed: Option<&Attachment>) -> Result<()> {
        let others = state.containers.values().filter(|held| changed.is_none_or(|changed| changed.id != held.id));
        let containers: Vec<&Attachment> = others.chain(changed).collect();
        let is_used = !containers.is_empty();
        load("load the rules of the instance", &self.ruleset.main_table(&containers), is_used).await?;
        if !state.unserved.is_empty() {
            nft::apply("refuse what nobody serves", &self.ruleset.unserve(&state.unserved)).await?;
        }
        let pins = self.ruleset.bridge_table(&state.pool);
        if let Err(error) = load("pin addresses to bridge ports", &pins, is_used).await {
            tracing::warn!(%error, "a container with raw sockets could take the address of another one");
        }
        Ok(())
    }

    /// Connections of containers to exactly these addresses and ports of services are refused from now on; those to other
    /// ones of the range go to the proxy. Connections that stand go on.
    ///
    /// # Errors
    /// If nft fails; then what was refused before is.
    pub async fn set_unserved(&self, unserved: BTreeSet<(Ipv4Addr, u16)>) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.unserved != unserved {
            nft::apply("refuse what nobody serves", &self.ruleset.unserve(&unserved)).await?;
            state.unserved = unserved;
        }
        Ok(())
    }

    /// Loads the rules again: for hosts on which someone flushes the rule set, as a restart of another firewall does.
    /// Connections go on.
    ///
    /// # Errors
    /// If nft fails.
    pub async fn repair(&self) -> Result<()> {
        self.load_rules().await
    }

    /// The bridge address: gateway and DNS server of the containers, where the proxy must listen.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.ruleset.gateway
    }

    /// Range of the containers' addresses.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.ruleset.subnet
    }

    /// Range of the virtual service addresses.
    #[must_use]
    pub fn service_cidr(&self) -> Ipv4Net {
        self.ruleset.service_cidr
    }

    /// Name of the bridge.
    #[must_use]
    pub fn bridge_name(&self) -> &str {
        &self.ruleset.bridge
    }

    /// All attached containers, by id.
    pub async fn list(&self) -> Vec<Attachment> {
        self.state.lock().await.containers.values().cloned().collect()
    }

    /// The container that owns the address: how the proxy finds out who calls.
    pub async fn container_at(&self, ip: Ipv4Addr) -> Option<String> {
        let state = self.state.lock().await;
        state.containers.values().find(|container| container.ip == ip).map(|container| container.id.clone())
    }

    /// Removes all that the instance made: namespaces, links, rules, routes, records, kernel switches.
    ///
    /// # Errors
    /// The first failure; what can be removed is removed in any case.
    pub async fn close(&self) -> Result<()> {
        let ids: Vec<String> = self.list().await.into_iter().map(|container| container.id).collect();
        let mut first = Ok(());
        for id in ids {
            first = first.and(self.detach(&id).await);
        }
        let state = self.state.lock().await;
        first = first.and(self.links.delete(&self.ruleset.bridge).await);
        first = first.and(nft::apply("remove the rules of the instance", &self.ruleset.remove("inet")).await);
        if let Err(error) = nft::apply("remove the address pins", &self.ruleset.remove("bridge")).await {
            // Where the kernel has no such tables there is nothing to remove.
            tracing::debug!(%error, "bridge table not removed");
        }
        if let Some(before) = &state.instance.ip_forward_before {
            first = first.and(self.restore_forwarding(before).await);
        }
        first.and(state.records.clear())
    }

    async fn restore_forwarding(&self, before: &str) -> Result<()> {
        if self.links.other_bridges(&self.ruleset.bridge).await? {
            tracing::info!("net.ipv4.ip_forward stays on: another bridge of this host may need it");
            return Ok(());
        }
        sysctl::write(IP_FORWARD, before)
    }
}

/// Loads a table: where containers may be using it, without a moment in which it does not hold, if that is possible.
async fn load(operation: &'static str, table: &Load, is_used: bool) -> Result<()> {
    if is_used {
        match nft::apply(operation, &table.refill()).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, "the rules that are there are other ones, or none"),
        }
    }
    nft::apply(operation, &table.replace()).await
}

/// Keeps the containers that are alive and whose network is whole, removes everything else of the instance.
async fn surviving(
    options: &Options,
    records: &Records,
    links: &Links,
    alive: &BTreeSet<String>,
) -> Result<BTreeMap<String, Attachment>> {
    let mut kept = BTreeMap::new();
    for record in records.containers()? {
        let whole =
            netns::is_pinned(&options.netns_path(&record.id)) && links.index(&record.host_link).await?.is_some();
        if alive.contains(&record.id) && whole {
            kept.insert(record.id.clone(), Attachment { netns_path: options.netns_path(&record.id), ..record });
        }
    }
    let known: BTreeSet<&str> = kept.values().map(|container| container.host_link.as_str()).collect();
    for link in links.names_starting(&host_link_prefix(&options.instance)).await? {
        if !known.contains(link.as_str()) {
            tracing::info!(link, "removing the network link of a container that is gone");
            links.delete(&link).await?;
        }
    }
    for name in records.namespaces()? {
        if !kept.contains_key(&name) {
            netns::unpin(&options.dir.join("ns").join(&name))?;
        }
    }
    records.remove_others(|id| kept.contains_key(id))?;
    Ok(kept)
}

/// The ranges of an adopted instance, or free ones. A bridge without containers is made anew.
async fn settle_ranges(options: &Options, records: &Records, links: &Links, kept: usize) -> Result<Instance> {
    let old = records.instance();
    if let Some(old) = old.as_ref().filter(|_| kept > 0) {
        let wishes = [
            (Purpose::Containers, options.subnet, old.subnet),
            (Purpose::Services, options.service_cidr, old.service_cidr),
        ];
        for (purpose, wanted, current) in wishes {
            if let Some(wanted) = wanted.filter(|wanted| wanted.trunc() != current) {
                return Err(Error::RangeInUse { option: purpose.option(), wanted, current, containers: kept });
            }
        }
        return Ok(old.clone());
    }
    links.delete(&options.bridge()).await?;
    let mut taken = links.taken(None).await?;
    // The former range is preferred: addresses that others have cached stay right over a restart.
    let subnet = choose_again(Purpose::Containers, options.subnet, old.as_ref().map(|old| old.subnet), &taken)?;
    taken.push(subnet);
    let former = old.as_ref().map(|old| old.service_cidr);
    let service_cidr = choose_again(Purpose::Services, options.service_cidr, former, &taken)?;
    Ok(Instance { subnet, service_cidr, ip_forward_before: old.and_then(|old| old.ip_forward_before) })
}

fn choose_again(
    purpose: Purpose,
    wanted: Option<Ipv4Net>,
    former: Option<Ipv4Net>,
    taken: &[Ipv4Net],
) -> Result<Ipv4Net> {
    match (wanted, former) {
        (None, Some(former)) => choose(purpose, Some(former), taken).or_else(|_| choose(purpose, None, taken)),
        _ => choose(purpose, wanted, taken),
    }
}

/// Forwarding for the host; for the bridge: no IPv6 (the rules speak IPv4), and loopback destinations translated to
/// containers may leave through it (what arrives with a loopback address is dropped by the rules).
fn prepare_host(bridge: &str, state: &mut State) -> Result<()> {
    sysctl::write_if_present(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1")?;
    sysctl::write(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    if sysctl::read(IP_FORWARD)? != "1" {
        state.instance.ip_forward_before = Some(sysctl::read(IP_FORWARD)?);
        state.records.put_instance(&state.instance)?;
        sysctl::write(IP_FORWARD, "1")?;
        tracing::info!("net.ipv4.ip_forward was set to 1: containers need it to reach the outside");
    }
    Ok(())
}
