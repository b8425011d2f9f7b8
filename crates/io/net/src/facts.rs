//! What container networking can do on this node, found out by trying it in a temporary namespace.

use std::{fs, net::Ipv4Addr, os::fd::AsFd, path::Path};

use crate::{
    Error, Result,
    links::{Links, Veth},
    netns, nft,
    pool::AddressPool,
    ruleset::Ruleset,
};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// What works here. All false where containers cannot have a network: the process driver is for such nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The process may change links, routes and rules.
    pub net_admin: bool,
    /// The process may make and pin namespaces.
    pub sys_admin: bool,
    /// First line of `nft --version`, if the program is there.
    pub nft: Option<String>,
    /// Namespaces, bridges and veth pairs can be made.
    pub bridge: bool,
    /// Bridge ports can be isolated from each other.
    pub isolated_ports: bool,
    /// The kernel takes our filters and translations.
    pub rules: bool,
    /// The kernel can pin an address to a bridge port (`bridge` family of nftables).
    pub pinned_addresses: bool,
    /// Another firewall of the host drops forwarded packets by default (Docker does): containers then reach services,
    /// but not the outside, and published ports are not reached from other hosts.
    pub forward_dropped_by_others: bool,
    /// Another firewall of the host drops packets to the host by default: it must accept what comes from the bridge, or
    /// containers reach neither DNS nor services.
    pub input_dropped_by_others: bool,
}

impl Facts {
    /// Whether `Network::open` can work.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.net_admin && self.sys_admin && self.nft.is_some() && self.bridge && self.isolated_ports && self.rules
    }
}

/// Tries what this node can do. Never fails: what cannot be tried is reported as absent.
pub async fn facts() -> Facts {
    let mut facts = Facts {
        net_admin: has_capability(CAP_NET_ADMIN),
        sys_admin: has_capability(CAP_SYS_ADMIN),
        nft: nft::version().await.ok(),
        ..Facts::default()
    };
    if facts.net_admin && facts.sys_admin {
        let tried = netns::in_scratch(try_all).await.unwrap_or_default();
        let Facts { bridge, isolated_ports, rules, pinned_addresses, .. } = tried;
        facts = Facts { bridge, isolated_ports, rules, pinned_addresses, ..facts };
        let chains = nft::chains().await.unwrap_or_default();
        facts.forward_dropped_by_others = drops(&chains, "forward");
        facts.input_dropped_by_others = drops(&chains, "input");
    }
    facts
}

/// On a thread in a scratch namespace, with a runtime of its own: nft must be started from this very thread.
fn try_all() -> Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start", "runtime of a scratch namespace"))?;
    Ok(runtime.block_on(async {
        let mut facts = Facts::default();
        if let Err(error) = try_each(&mut facts).await {
            tracing::debug!(%error, "container networking is incomplete on this node");
        }
        facts
    }))
}

async fn try_each(facts: &mut Facts) -> Result<()> {
    let ruleset = sample();
    let pool = AddressPool::new(ruleset.subnet, []);
    facts.rules = nft::apply("try filters and translations", &ruleset.main_table(&[]).replace()).await.is_ok();
    facts.pinned_addresses = nft::apply("try pinned addresses", &ruleset.bridge_table(&pool).replace()).await.is_ok();
    let links = Links::open()?;
    let bridge = links.ensure_bridge(&ruleset.bridge, ruleset.gateway, ruleset.subnet.prefix_len(), 1500).await?;
    let own = Path::new("/proc/thread-self/ns/net");
    let netns = fs::File::open(own).map_err(Error::io("open", own))?;
    let ip = Ipv4Addr::new(192, 0, 2, 2);
    links.create_veth(&Veth { host_link: "hvtry-2", bridge, netns: netns.as_fd(), ip, mtu_bytes: 1500 }).await?;
    facts.bridge = true;
    links.isolate_port("hvtry-2", bridge).await?;
    facts.isolated_ports = true;
    Ok(())
}

/// Documentation ranges: nothing of the host is touched, the namespace is empty.
fn sample() -> Ruleset {
    Ruleset {
        instance: "try".into(),
        bridge: "hep-try".into(),
        subnet: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 29),
        gateway: Ipv4Addr::new(192, 0, 2, 1),
        service_cidr: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
        proxy_port: 15001,
        dns_port: 53,
        owner_uid: 0,
    }
}

fn drops(chains: &str, hook: &str) -> bool {
    let hook = format!(" hook {hook} ");
    chains.lines().any(|line| line.contains(&hook) && line.contains("policy drop"))
}

/// The precondition of `Network::open`, checked before anything is tried.
pub(crate) fn check_permitted() -> Result<()> {
    for (number, capability) in [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_SYS_ADMIN, "CAP_SYS_ADMIN")] {
        if !has_capability(number) {
            return Err(Error::NotPermitted { capability });
        }
    }
    Ok(())
}

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status).is_some_and(|set| set & (1 << number) != 0)
}

fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_chains_are_read() {
        assert_eq!(effective("Name:\tx\nCapEff:\t00000000a80425fb\n"), Some(0xa804_25fb));
        assert_eq!(effective("CapEff:\tzz\n"), None);
        let chain =
            "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n";
        assert!(drops(chain, "forward"));
        assert!(!drops(chain, "input"));
    }
}
