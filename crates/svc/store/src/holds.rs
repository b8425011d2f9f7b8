//! Uploads whose data must stay because it is being read here. Knows nothing of data.

use crate::record::Upload;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Inner {
    counts: Mutex<BTreeMap<Upload, usize>>,
    released: Notify,
}

/// Counts the holders of uploads.
#[derive(Debug, Default)]
pub(crate) struct Holds(Arc<Inner>);

/// Holds an upload until dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    inner: Arc<Inner>,
    upload: Upload,
}

impl Holds {
    pub(crate) fn hold(&self, upload: Upload) -> Hold {
        *self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(upload).or_insert(0) += 1;
        Hold { inner: self.0.clone(), upload }
    }

    pub(crate) fn is_held(&self, upload: Upload) -> bool {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&upload)
    }

    /// Waits until nobody holds the upload.
    pub(crate) async fn released(&self, upload: Upload) {
        loop {
            let released = self.0.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            if !self.is_held(upload) {
                return;
            }
            released.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut counts = self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.upload) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.upload);
                self.inner.released.notify_waiters();
            }
        }
    }
}
