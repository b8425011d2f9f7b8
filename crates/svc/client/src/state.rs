//! The live state of one kind: lists, watches, resumes after a lost connection, lists again after a compaction.
//! Knows no kind's meaning.

use crate::{
    client::Client,
    error::{Error, Result},
    part::Part,
};
use heptad_api::{List, Object, Resource, WatchBatch, WatchChange};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tokio::{sync::watch, task::AbortHandle};

/// The first and the longest wait after a failure.
const RETRY_DELAY_MS_MIN: u64 = 50;
const RETRY_DELAY_MS_MAX: u64 = 2_000;

/// All objects of a kind at one revision.
#[derive(Clone, Debug)]
pub struct View<T> {
    /// The revision up to which everything was seen; 0 before the first list.
    pub revision: u64,
    /// Whether the first list has arrived.
    pub synced: bool,
    /// Why the server is not being followed at the moment, if it is not; the objects are then those of the last
    /// revision.
    pub error: Option<String>,
    /// The objects by `NAMESPACE/NAME`, or by name if the kind has no namespaces.
    pub objects: BTreeMap<String, Object<T>>,
}

/// The key of an object in a [`View`].
fn key<T: Resource>(object: &T) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name()),
        None => object.name().to_owned(),
    }
}

impl<T: Resource> View<T> {
    fn listed(list: List<T>) -> Self {
        let objects = list.items.into_iter().map(|item| (key(&item.object), item)).collect();
        Self { revision: list.revision, synced: true, error: None, objects }
    }

    fn advance(&mut self, batch: WatchBatch<T>) {
        self.revision = batch.revision;
        self.error = None;
        for event in batch.events {
            let key = key(&event.object);
            match event.change {
                WatchChange::Put => {
                    self.objects.insert(key, Object { revision: batch.revision, object: event.object });
                }
                WatchChange::Delete => {
                    self.objects.remove(&key);
                }
            }
        }
    }
}

/// A view that is kept up to date by a task of its own, which ends when this is dropped.
pub struct State<T> {
    receiver: watch::Receiver<Arc<View<T>>>,
    task: AbortHandle,
}

impl<T> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("revision", &self.receiver.borrow().revision).finish_non_exhaustive()
    }
}

impl<T> Drop for State<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Resource> State<T> {
    /// The current view.
    pub fn view(&self) -> Arc<View<T>> {
        self.receiver.borrow().clone()
    }

    /// Waits for a view that was not seen yet, and returns it. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Arc<View<T>> {
        // The sender lives in the task, which ends only with `self`.
        let _ = self.receiver.changed().await;
        self.receiver.borrow_and_update().clone()
    }

    /// Waits until the first list has arrived.
    pub async fn synced(&mut self) -> Arc<View<T>> {
        loop {
            let view = self.receiver.borrow_and_update().clone();
            if view.synced {
                return view;
            }
            let _ = self.receiver.changed().await;
        }
    }

    /// A receiver of all views to come, for `select!`; it closes when this is dropped.
    pub fn receiver(&self) -> watch::Receiver<Arc<View<T>>> {
        self.receiver.clone()
    }
}

/// Follows all objects of a kind for ever: the view is first empty and not `synced`, then that of the first list, then
/// advanced with every revision that changes an object of the kind.
pub fn watch_state<T: Resource>(client: &Client) -> State<T> {
    watch_part(client, Part::All)
}

/// Follows a part of a kind for ever, as [`watch_state`] follows all of it.
pub fn watch_part<T: Resource>(client: &Client, part: Part) -> State<T> {
    let empty = View { revision: 0, synced: false, error: None, objects: BTreeMap::new() };
    let (sender, receiver) = watch::channel(Arc::new(empty));
    let task = tokio::spawn(follow(client.clone(), part, sender));
    State { receiver, task: task.abort_handle() }
}

async fn follow<T: Resource>(client: Client, part: Part, sender: watch::Sender<Arc<View<T>>>) {
    let mut delay_ms = RETRY_DELAY_MS_MIN;
    let mut relist = true;
    loop {
        let before = sender.borrow().revision;
        let ended = follow_once(&client, &part, &sender, relist).await;
        relist = false;
        // After progress, the next failure waits for the shortest time again.
        if sender.borrow().revision != before {
            delay_ms = RETRY_DELAY_MS_MIN;
        }
        match ended {
            Ok(()) => {}
            Err(error) if error.is_compacted() => relist = true,
            Err(error) => {
                relist = !sender.borrow().synced;
                let text = error.to_string();
                sender.send_if_modified(|view| note(view, text));
            }
        }
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        delay_ms = (delay_ms * 2).min(RETRY_DELAY_MS_MAX);
    }
}

fn note<T: Resource>(view: &mut Arc<View<T>>, error: String) -> bool {
    if view.error.as_ref() == Some(&error) {
        return false;
    }
    Arc::make_mut(view).error = Some(error);
    true
}

/// Lists if asked, then follows one watch to its end.
async fn follow_once<T: Resource>(
    client: &Client,
    part: &Part,
    sender: &watch::Sender<Arc<View<T>>>,
    relist: bool,
) -> Result<()> {
    if relist {
        let view = View::listed(client.list_part::<T>(part).await?);
        sender.send_replace(Arc::new(view));
    }
    let from = sender.borrow().revision + 1;
    let mut watch = client.watch_part::<T>(part, Some(from)).await?;
    while let Some(batch) = watch.next().await? {
        if batch.revision < sender.borrow().revision {
            let reason = format!("the watch went back to revision {}", batch.revision);
            return Err(Error::Protocol { operation: "watch".into(), address: client.address(), reason });
        }
        sender.send_if_modified(|view| {
            let told = !batch.events.is_empty() || view.error.is_some();
            Arc::make_mut(view).advance(batch);
            told
        });
    }
    Ok(())
}
