//! Network policies: whom they select, and with whom those may talk.

use super::Shown;
use heptad_model::{NetworkPolicy, PolicyPeer};

impl Shown for NetworkPolicy {
    type Beside = ();

    fn headings(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "SELECTS", "INGRESS", "EGRESS"]
    }

    fn cells(&self, _: &Self::Beside, _: bool) -> Vec<String> {
        let selects =
            if self.selector.services.is_empty() { "all".to_owned() } else { self.selector.services.join(",") };
        let peers = |peers: &Option<Vec<PolicyPeer>>| match peers {
            None => "any".to_owned(),
            Some(peers) if peers.is_empty() => "none".to_owned(),
            Some(peers) => {
                let name = |p: &PolicyPeer| match (p.external, p.services.is_empty()) {
                    (true, _) => "outside".to_owned(),
                    (false, true) => "selected".to_owned(),
                    (false, false) => p.services.join(","),
                };
                peers.iter().map(name).collect::<Vec<_>>().join(";")
            }
        };
        vec![self.namespace.to_string(), self.name.clone(), selects, peers(&self.ingress), peers(&self.egress)]
    }
}
