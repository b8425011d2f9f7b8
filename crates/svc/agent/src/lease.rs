//! What the servers' answers let this node run. This collects the answers and watches the time; `heptad_model::lease`
//! judges. Stops nothing itself.

use crate::options::Options;
use heptad_api::ErrorCode;
use heptad_client::Error;
use heptad_model::{
    Contact, Permit,
    lease::{LOOK_INTERVAL_MS, NEVER_TWICE_LEASE_MS},
};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// What was heard from the servers, and what follows from it.
#[derive(Debug)]
pub(crate) struct Lease {
    began: Instant,
    contact: Mutex<Contact>,
    permit: watch::Sender<Permit>,
}

impl Default for Lease {
    fn default() -> Self {
        Self { began: Instant::now(), contact: Mutex::default(), permit: watch::Sender::new(Permit::All) }
    }
}

impl Lease {
    /// The clock by which the contact is measured.
    fn at_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Records the answer to a request that this node sent about itself at `asked`. A server proves its identity before
    /// it is asked, so nobody else can say that the node was removed.
    pub(crate) fn hear<T>(&self, asked: Instant, answer: &Result<T, Error>) {
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(_) => {
                contact.answered_ms = contact.answered_ms.max(self.at_ms(asked));
                contact.removed = None;
            }
            Err(error) if error.code() == Some(ErrorCode::NodeRemoved) => {
                contact.refused(self.at_ms(Instant::now()));
            }
            Err(_) => {}
        }
    }

    /// What may run now.
    pub(crate) fn permit(&self) -> Permit {
        *self.permit.borrow()
    }

    /// The same, with notice of every change.
    pub(crate) fn permits(&self) -> watch::Receiver<Permit> {
        self.permit.subscribe()
    }

    /// Re-evaluates as time passes.
    pub(crate) async fn look(&self, options: &Options) {
        loop {
            let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
            // A node without an address has only the server in this process, and nothing can cut it off from that.
            let lease_ms = options.address.map(|_| NEVER_TWICE_LEASE_MS);
            let permit = contact.permit(self.at_ms(Instant::now()), lease_ms);
            if self.permit.send_if_modified(|before| std::mem::replace(before, permit) != permit) {
                say(permit, options);
            }
            sleep(Duration::from_millis(LOOK_INTERVAL_MS)).await;
        }
    }
}

fn say(permit: Permit, options: &Options) {
    let node = &options.node;
    match permit {
        Permit::All => tracing::info!(%node, "a server answers: everything may run"),
        Permit::NothingTwice => tracing::warn!(
            %node,
            "no server has answered for {} s: what must never run twice is stopped until one does",
            NEVER_TWICE_LEASE_MS / 1000
        ),
        Permit::Nothing => tracing::error!(
            %node,
            "this node was removed from the cluster, or joined anew on another machine: all that it runs is stopped. To take \
             this machine in again, stop this program and run the line that `heptad node join-token` prints; else stop it and \
             remove its data directory"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::ResourceVector;

    #[tokio::test(start_paused = true)]
    async fn the_agent_beside_its_only_server_needs_no_answers() {
        let alone = Options::new("n1", ResourceVector::ZERO, "/x");
        let one_of_many = Options { address: Some(([10, 0, 0, 1], 7444).into()), ..alone.clone() };
        for (options, permit) in [(alone, Permit::All), (one_of_many, Permit::NothingTwice)] {
            let lease = Lease::default();
            let day = Duration::from_secs(24 * 3_600);
            assert!(tokio::time::timeout(day, lease.look(&options)).await.is_err());
            assert_eq!(lease.permit(), permit);
        }
    }
}
