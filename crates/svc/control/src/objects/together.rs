//! One read for all who ask for the same while another read is under way. Knows nothing about what is read.

use crate::error::Result;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Mutex;

/// A read shared by several callers.
#[derive(Debug)]
pub(super) struct Together<T> {
    asked: AtomicU64,
    /// How many had asked when the last read began, and its result, while others wait for it.
    last: Mutex<(u64, Option<Arc<T>>)>,
    waiting: Arc<()>,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self { asked: AtomicU64::new(0), last: Mutex::new((0, None)), waiting: Arc::default() }
    }
}

impl<T> Together<T> {
    /// The result of a read that began no earlier than this call.
    pub(super) async fn get(&self, read: impl AsyncFnOnce() -> Result<T>) -> Result<Arc<T>> {
        let waits = self.waiting.clone();
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut last = self.last.lock().await;
        let found = match &last.1 {
            Some(found) if last.0 >= number => found.clone(),
            _ => {
                let asked = self.asked.load(Ordering::Acquire);
                last.1 = None;
                let found = Arc::new(read().await?);
                *last = (asked, Some(found.clone()));
                found
            }
        };
        // Nobody else waits for it.
        if Arc::strong_count(&waits) == 2 {
            last.1 = None;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::join_all};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn who_asks_during_a_read_shares_the_next_one() {
        let (together, reads, gate) = (Together::default(), AtomicU64::new(0), Semaphore::new(0));
        let ask = async || {
            let read = async || {
                let number = reads.fetch_add(1, Ordering::SeqCst) + 1;
                gate.acquire().await.expect("it is open").forget();
                Ok(number)
            };
            *together.get(read).await.expect("it was read")
        };
        let mut first = Box::pin(ask());
        assert!(first.as_mut().now_or_never().is_none(), "it is under way");
        // A caller that gives up delays nobody.
        assert!(Box::pin(ask()).as_mut().now_or_never().is_none());
        let mut others = Box::pin(join_all((0..50).map(|_| ask())));
        assert!(others.as_mut().now_or_never().is_none());
        gate.add_permits(2);
        assert_eq!(first.await, 1);
        assert_eq!(others.await, [2; 50], "not what began before they asked");
        assert!(together.last.lock().await.1.is_none(), "nothing is kept");
        gate.add_permits(1);
        assert_eq!(ask().await, 3);
    }

    #[tokio::test]
    async fn a_read_that_fails_fails_for_one() {
        let together = Together::<u64>::default();
        let refused = crate::error::Error::refused(heptad_api::ErrorCode::Unavailable, "not now");
        assert!(together.get(async || Err(refused)).await.is_err());
        assert_eq!(together.get(async || Ok(7)).await.ok().as_deref(), Some(&7));
    }
}
