//! Reports one container's state to the control plane: always the newest state, repeated until it was heard. Never
//! holds up the container's own life.

use crate::context::Context;
use heptad_api::operations::ContainerReport;
use heptad_model::ContainerId;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const RETRY_DELAY_MS_MIN: u64 = 50;
const RETRY_DELAY_MS_MAX: u64 = 5_000;

/// The sending side of one container's reports. Clones report on the same container.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    /// The newest state, and how often it was changed.
    told: watch::Sender<(u64, ContainerReport)>,
    /// How many changes the control plane has heard of.
    heard: watch::Receiver<u64>,
}

impl Reporter {
    /// `known` is what the control plane has already heard about the container.
    pub(crate) fn start(id: ContainerId, context: Arc<Context>, known: ContainerReport) -> Self {
        let (told, changes) = watch::channel((0, known));
        let (hear, heard) = watch::channel(0);
        tokio::spawn(tell(id, context, changes, hear));
        Self { told, heard }
    }

    /// Changes the state to report.
    pub(crate) fn set(&self, change: impl FnOnce(&mut ContainerReport)) {
        self.told.send_modify(|(count, report)| {
            change(report);
            *count += 1;
        });
    }

    /// Reports the newest state once more, if there is one.
    pub(crate) fn again(&self) {
        self.told.send_if_modified(|(count, _)| {
            let told = *count > 0 && *count < u64::MAX - 1;
            *count += u64::from(told);
            told
        });
    }

    /// Waits until the newest state was heard, but at most `limit`.
    pub(crate) async fn delivered(&self, limit: Duration) {
        let newest = self.told.borrow().0;
        let mut heard = self.heard.clone();
        // Too late, or nobody is there: the caller goes on either way.
        let _ = timeout(limit, heard.wait_for(|count| *count >= newest)).await;
    }

    /// Reports nothing more.
    pub(crate) fn end(&self) {
        self.told.send_modify(|(count, _)| *count = u64::MAX);
    }
}

async fn tell(
    id: ContainerId,
    context: Arc<Context>,
    mut changes: watch::Receiver<(u64, ContainerReport)>,
    hear: watch::Sender<u64>,
) {
    let mut delay_ms = RETRY_DELAY_MS_MIN;
    while changes.changed().await.is_ok() {
        loop {
            let (count, mut report) = changes.borrow_and_update().clone();
            if count == u64::MAX {
                return;
            }
            report.node = context.options.node.clone();
            match context.plane.report(&id, &report).await {
                Ok(()) => {
                    delay_ms = RETRY_DELAY_MS_MIN;
                    hear.send_replace(count);
                    break;
                }
                Err(error) if crate::context::answer_of(&error).is_some() => {
                    tracing::debug!(container = %id, %error, "the report was refused");
                    hear.send_replace(count);
                    break;
                }
                Err(error) => {
                    tracing::debug!(container = %id, %error, "the report is sent again");
                    sleep(Duration::from_millis(delay_ms)).await;
                    if changes.has_changed().is_err() {
                        return;
                    }
                    delay_ms = (delay_ms * 2).min(RETRY_DELAY_MS_MAX);
                }
            }
        }
    }
}
