//! Chooses address ranges that overlap nothing on the host. Pure: the host's routes and addresses are arguments.

use ipnet::Ipv4Net;

use crate::{Error, Result};

/// Where to look for ranges, best first. The later ones serve hosts whose company network routes all of 10.0.0.0/8.
const SUBNET_POOLS: [&str; 4] = ["10.88.0.0/16", "172.28.0.0/16", "192.168.128.0/17", "100.96.0.0/16"];
const SERVICE_POOLS: [&str; 4] = ["10.89.0.0/16", "172.29.0.0/16", "198.18.0.0/16", "100.97.0.0/16"];
const SUBNET_PREFIX: u8 = 24;
const SERVICE_PREFIX: u8 = 20;

/// What a range is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Containers,
    Services,
}

impl Purpose {
    pub(crate) const fn option(self) -> &'static str {
        match self {
            Self::Containers => "subnet",
            Self::Services => "service_cidr",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers of this node",
            Self::Services => "service addresses",
        }
    }

    fn candidates(self) -> impl Iterator<Item = Ipv4Net> {
        let (pools, prefix) = match self {
            Self::Containers => (SUBNET_POOLS, SUBNET_PREFIX),
            Self::Services => (SERVICE_POOLS, SERVICE_PREFIX),
        };
        pools
            .into_iter()
            .filter_map(|pool| pool.parse::<Ipv4Net>().ok())
            .flat_map(move |pool| pool.subnets(prefix).into_iter().flatten())
    }
}

/// The wanted range if it is free, or the first free candidate. `taken` is what the host uses, without the default route.
pub(crate) fn choose(purpose: Purpose, wanted: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
    let option = purpose.option();
    if let Some(range) = wanted.map(|net| net.trunc()) {
        return match overlap(range, taken) {
            Some(with) => Err(Error::RangeTaken { option, range, with }),
            None => Ok(range),
        };
    }
    purpose
        .candidates()
        .find(|range| overlap(*range, taken).is_none())
        .ok_or(Error::NoFreeRange { purpose: purpose.name(), option })
}

fn overlap(range: Ipv4Net, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    taken.iter().copied().find(|net| net.contains(&range.network()) || range.contains(&net.network()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a literal range")
    }

    #[test]
    fn the_first_free_range_is_taken() {
        assert_eq!(choose(Purpose::Containers, None, &[]).expect("free"), net("10.88.0.0/24"));
        assert_eq!(choose(Purpose::Services, None, &[]).expect("free"), net("10.89.0.0/20"));
        let taken = [net("10.88.0.0/23"), net("10.88.2.7/32")];
        assert_eq!(choose(Purpose::Containers, None, &taken).expect("free"), net("10.88.3.0/24"));
        assert_eq!(choose(Purpose::Containers, None, &[net("10.0.0.0/8")]).expect("free"), net("172.28.0.0/24"));
    }

    #[test]
    fn a_wanted_range_that_overlaps_is_refused_with_both_named() {
        let refused = choose(Purpose::Containers, Some(net("10.1.0.0/16")), &[net("10.1.2.0/24")]);
        let text = refused.expect_err("overlaps").to_string();
        assert!(text.contains("10.1.0.0/16") && text.contains("10.1.2.0/24"), "{text}");
    }

    #[test]
    fn no_free_range_says_which_option_helps() {
        let taken = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"].map(net);
        let text = choose(Purpose::Containers, None, &taken).expect_err("full").to_string();
        assert!(text.contains("subnet"), "{text}");
    }

    proptest! {
        #[test]
        fn a_chosen_range_overlaps_nothing(raw in prop::collection::vec((any::<u32>(), 8u8..=32), 0..40)) {
            let taken: Vec<Ipv4Net> =
                raw.iter().filter_map(|(bits, len)| Ipv4Net::new((*bits).into(), *len).ok()).map(|n| n.trunc()).collect();
            if let Ok(range) = choose(Purpose::Containers, None, &taken) {
                prop_assert!(!taken.iter().any(|t| t.hosts().take(4).any(|a| range.contains(&a)) || t.contains(&range.addr())));
            }
        }
    }
}
