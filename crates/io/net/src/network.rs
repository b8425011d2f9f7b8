//! The network of one platform instance on this node: opened (adopting what a crashed process left), and closed.
//! Attaching containers is in `attach`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{MutexGuard, PoisonError},
};

use ipnet::Ipv4Net;
use tokio::sync::{Mutex, RwLock};

use crate::{
    Attachment, Error, Options, Result,
    links::Links,
    netns, nft,
    options::check_container_id,
    pool::AddressPool,
    ports::Ports,
    records::{Instance, Records},
    ruleset::{Load, Ruleset, host_link_prefix},
    subnet::{Purpose, choose},
    sysctl,
    turns::Turns,
};

const IP_FORWARD: &str = "ipv4/ip_forward";

/// The container network of one platform instance on this node. Dropping it leaves everything in place, as after a
/// crash: a later `open` adopts it. `close` removes it.
#[derive(Debug)]
pub struct Network {
    pub(crate) options: Options,
    pub(crate) ruleset: Ruleset,
    pub(crate) links: Links,
    pub(crate) bridge: u32,
    pub(crate) mtu_bytes: u32,
    /// Only the current holder of its turn touches a container's record.
    pub(crate) records: Records,
    pub(crate) turns: Turns,
    pub(crate) ports: Ports,
    state: std::sync::Mutex<State>,
    /// Shared by those who change single elements of the rules, which the kernel orders; held exclusively by whoever
    /// loads all rules from the state, so that no change is lost. A container's state changes only while this is held.
    rules: RwLock<()>,
    /// Service addresses with the ports that are served, as the kernel has them; `None` until this process has set
    /// them.
    served: Mutex<Option<BTreeMap<Ipv4Addr, BTreeSet<u16>>>>,
}

/// What changes while containers come and go, several at a time; nobody holds it while the kernel works.
#[derive(Debug)]
pub(crate) struct State {
    instance: Instance,
    pub(crate) pool: AddressPool,
    pub(crate) containers: BTreeMap<String, Attachment>,
}

impl Network {
    /// Sets the network up, or adopts that of an earlier process of the same instance: containers in `alive` keep their
    /// namespace, address and ports; everything of any other container is removed.
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
        let instance = choose_ranges(&options, &records, &links, kept.len()).await?;
        let pool = AddressPool::new(instance.subnet, kept.values().map(|container| container.ip));
        let network = Self::build(options, instance, records, links, pool, kept).await?;
        match network.start().await {
            Ok(()) => Ok(network),
            Err(error) => Err(network.give_up(error).await),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start(&self) -> Result<()> {
        prepare_host(&self.ruleset.bridge, &mut self.state().instance, &self.records)?;
        self.adopt_ports().await?;
        self.load_rules().await
    }

    /// A failed start leaves nothing, unless containers run: a later start may still adopt those.
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
        // Recorded before anything is created, so that a crash in between does not lose the ranges.
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
        Ok(Self {
            options,
            ruleset,
            links,
            bridge,
            mtu_bytes,
            records,
            turns: Turns::default(),
            ports: Ports::default(),
            state: State { instance, pool, containers }.into(),
            rules: RwLock::default(),
            served: Mutex::default(),
        })
    }

    /// Puts adopted veths back on the bridge and reserves their published ports.
    async fn adopt_ports(&self) -> Result<()> {
        for container in self.list().await {
            self.links.isolate_port(&container.host_link, self.bridge).await?;
            self.ports.adopt(&container.id, &container.host_ports);
        }
        Ok(())
    }

    /// The link route needs the bridge up, and the bridge goes up only after the rules are loaded, so it is never up
    /// without them.
    async fn load_rules(&self) -> Result<()> {
        self.load_rules_with(None).await?;
        self.links.up(self.bridge).await?;
        self.links.add_link_route(self.ruleset.service_cidr, self.bridge).await
    }

    /// All rules of the instance, with one container in its new state.
    async fn load_rules_with(&self, changed: Option<&Attachment>) -> Result<()> {
        let _alone = self.rules.write().await;
        let mut containers = self.state().containers.clone();
        containers.extend(changed.map(|changed| (changed.id.clone(), changed.clone())));
        let is_used = !containers.is_empty();
        load("load the rules of the instance", &self.ruleset.main_table(containers.values()), is_used).await?;
        if let Some(served) = &*self.served.lock().await {
            nft::apply("refuse what nobody serves", &self.ruleset.serve(served)).await?;
        }
        let pins = self.ruleset.bridge_table(&self.state().pool);
        if let Err(error) = load("pin addresses to bridge ports", &pins, is_used).await {
            tracing::warn!(%error, "a container with raw sockets could take the address of another one");
        }
        self.state().containers.extend(changed.map(|changed| (changed.id.clone(), changed.clone())));
        Ok(())
    }

    /// Applies the change that turns the rules into those of `changed`, which then becomes that container's state.
    pub(crate) async fn change_rules(&self, operation: &'static str, text: &str, changed: &Attachment) -> Result<()> {
        let _shared = self.rules.read().await;
        nft::apply(operation, text).await?;
        self.state().containers.insert(changed.id.clone(), changed.clone());
        Ok(())
    }

    /// The same, when the rules may have been changed by others.
    pub(crate) async fn change_or_load_rules(
        &self,
        operation: &'static str,
        text: &str,
        changed: &Attachment,
    ) -> Result<()> {
        let Err(error) = self.change_rules(operation, text, changed).await else { return Ok(()) };
        tracing::warn!(%error, "the rules are not as they were left; loading them anew");
        self.load_rules_with(Some(changed)).await
    }

    /// From now on, connections of containers to these service addresses are refused, unless they are to one of the
    /// ports that are served; connections to other addresses of the range go to the proxy. Open connections go on.
    ///
    /// # Errors
    /// If nft fails; earlier refusals then stay in force.
    pub async fn set_served(&self, served: BTreeMap<Ipv4Addr, BTreeSet<u16>>) -> Result<()> {
        let _shared = self.rules.read().await;
        let mut current = self.served.lock().await;
        if current.as_ref() != Some(&served) {
            nft::apply("refuse what nobody serves", &self.ruleset.serve(&served)).await?;
            *current = Some(served);
        }
        Ok(())
    }

    /// Loads the rules again, for hosts on which something flushes the rule set, such as a restart of another firewall.
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
        self.state().containers.values().cloned().collect()
    }

    /// The container that owns the address: this is how the proxy identifies callers.
    pub async fn container_at(&self, ip: Ipv4Addr) -> Option<String> {
        let state = self.state();
        state.containers.values().find(|container| container.ip == ip).map(|container| container.id.clone())
    }

    /// Removes everything that the instance created: namespaces, links, rules, routes, records, kernel switches. Waits
    /// for containers that are being attached.
    ///
    /// # Errors
    /// The first failure; everything that can be removed is removed in any case.
    pub async fn close(&self) -> Result<()> {
        // Each has a record from its first step to its last, and is listed only between.
        let recorded = self.records.containers().unwrap_or_default();
        let ids: BTreeSet<String> = self.list().await.into_iter().chain(recorded).map(|one| one.id).collect();
        let mut first = Ok(());
        for id in ids {
            first = first.and(self.detach(&id).await);
        }
        first = first.and(self.links.delete(&self.ruleset.bridge).await);
        first = first.and(nft::apply("remove the rules of the instance", &self.ruleset.remove("inet")).await);
        if let Err(error) = nft::apply("remove the address pins", &self.ruleset.remove("bridge")).await {
            // If the kernel has no such tables, there is nothing to remove.
            tracing::debug!(%error, "bridge table not removed");
        }
        let before = self.state().instance.ip_forward_before.clone();
        if let Some(before) = before {
            first = first.and(self.restore_forwarding(&before).await);
        }
        first.and(self.records.clear())
    }

    async fn restore_forwarding(&self, before: &str) -> Result<()> {
        if self.links.other_bridges(&self.ruleset.bridge).await? {
            tracing::info!("net.ipv4.ip_forward stays on: another bridge of this host may need it");
            return Ok(());
        }
        sysctl::write(IP_FORWARD, before)
    }
}

/// Loads a table; if containers may be using it, without interruption if that is possible.
async fn load(operation: &'static str, table: &Load, is_used: bool) -> Result<()> {
    if is_used {
        match nft::apply(operation, &table.refill()).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(%error, "the rules that are there are other ones, or none"),
        }
    }
    nft::apply(operation, &table.replace()).await
}

/// Keeps the live containers whose network is complete, removes everything else of the instance.
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
async fn choose_ranges(options: &Options, records: &Records, links: &Links, kept: usize) -> Result<Instance> {
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
    // The former range is preferred: addresses that others have cached then stay right over a restart.
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

/// Forwarding for the host. For the bridge: no IPv6 (the rules speak IPv4), and packets with loopback destinations that
/// were translated to containers may leave through it (packets that arrive with a loopback address are dropped by the
/// rules).
fn prepare_host(bridge: &str, instance: &mut Instance, records: &Records) -> Result<()> {
    sysctl::write_if_present(&format!("ipv6/conf/{bridge}/disable_ipv6"), "1")?;
    sysctl::write(&format!("ipv4/conf/{bridge}/route_localnet"), "1")?;
    if sysctl::read(IP_FORWARD)? != "1" {
        instance.ip_forward_before = Some(sysctl::read(IP_FORWARD)?);
        records.put_instance(instance)?;
        sysctl::write(IP_FORWARD, "1")?;
        tracing::info!("net.ipv4.ip_forward was set to 1: containers need it to reach the outside");
    }
    Ok(())
}
