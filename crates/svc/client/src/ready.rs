//! Waits until services are in their wanted state. Knows no screen: the waiting caller is told the state of each.

use crate::{Client, Error, watch_state};
use heptad_model::{Container, Service, ServiceKey, Standing};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// The pause between two checks of a rollout while nothing else changes, and after a change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Why services are not in their wanted state.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// A rollout failed.
    #[error("{service} failed: {reason}")]
    Failed {
        /// The service.
        service: ServiceKey,
        /// Why.
        reason: String,
    },
    /// An earlier revision is wanted again.
    #[error("{service} is back at revision {revision}: {reason}")]
    Back {
        /// The service.
        service: ServiceKey,
        /// The revision.
        revision: u64,
        /// Why.
        reason: String,
    },
    /// The time is over.
    #[error("not ready after {seconds} s: {open}; `heptad why NAME` says what is missing")]
    Late {
        /// How long the client waited.
        seconds: u64,
        /// What is still missing.
        open: String,
    },
    /// Their state cannot be read.
    #[error(transparent)]
    Asking(#[from] Error),
}

/// Waits until every replica of `names` is ready and none of their old containers is left; meanwhile tells `show` the
/// state of each.
pub async fn wait_ready(
    client: &Client,
    names: &[ServiceKey],
    limit: Duration,
    show: impl Fn(&ServiceKey, &Standing),
) -> Result<(), NotReady> {
    let mut services = watch_state::<Service>(client);
    let mut containers = watch_state::<Container>(client);
    services.synced().await;
    containers.synced().await;
    let deadline = Instant::now() + limit;
    let mut waits: Vec<Wait> =
        names.iter().map(|key| Wait { key: key.clone(), first: None, open: String::new() }).collect();
    loop {
        let mut settled = true;
        for wait in &mut waits {
            if let Some(standing) = wait.look(client).await? {
                show(&wait.key, &standing);
                settled &= standing.settled;
            }
        }
        if settled {
            return Ok(());
        }
        let changed = async {
            tokio::select! {
                _ = services.changed() => {}
                _ = containers.changed() => {}
                // What the rollout itself decides, such as that it failed, may leave both unchanged.
                () = sleep(LOOK_AGAIN) => {}
            }
            // Many changes arrive together.
            sleep(LOOK_PAUSE).await;
        };
        tokio::select! {
            () = changed => {}
            () = sleep_until(deadline) => {
                let open: Vec<&str> = waits.iter().map(|w| w.open.as_str()).filter(|open| !open.is_empty()).collect();
                return Err(NotReady::Late { seconds: limit.as_secs(), open: open.join(", ") });
            }
        }
    }
}

/// One service that is waited for.
struct Wait {
    key: ServiceKey,
    /// When the first rollout seen began. That one may be an earlier rollback, which says nothing about what is waited
    /// for.
    first: Option<u64>,
    /// What is still missing.
    open: String,
}

impl Wait {
    /// The service's state; `None` if there is no service of that name. A failed rollout is an error.
    async fn look(&mut self, client: &Client) -> Result<Option<Standing>, NotReady> {
        let status = match client.rollout(&self.key).await {
            Err(error) if error.is_not_found() => return Ok(None),
            status => status?,
        };
        let (key, first) = (&self.key, *self.first.get_or_insert(status.started_at_ms));
        if let Some(reason) = &status.standing.failed {
            return Err(NotReady::Failed { service: key.clone(), reason: reason.clone() });
        }
        if status.back_from.is_some() && status.started_at_ms != first {
            let (service, revision, reason) = (key.clone(), status.revision, status.reason);
            return Err(NotReady::Back { service, revision, reason });
        }
        let Standing { wanted, ready, waits_for, settled, .. } = &status.standing;
        self.open = match (settled, waits_for.as_str()) {
            (true, _) => String::new(),
            (false, "") => format!("{key} ({ready} of {wanted} ready)"),
            (false, waits_for) => format!("{key} ({ready} of {wanted} ready, {waits_for})"),
        };
        Ok(Some(status.standing))
    }
}
