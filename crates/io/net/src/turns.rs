//! One change of a container at a time, while changes of other containers go on. Knows only the ids of containers.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, Weak},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The containers that are being changed: as many as there are calls.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    of: std::sync::Mutex<BTreeMap<String, Weak<Mutex<()>>>>,
}

impl Turns {
    /// Waits until nobody else changes the container; it belongs to the caller as long as the guard lives.
    pub(crate) async fn take(&self, id: &str) -> OwnedMutexGuard<()> {
        self.turn(id).lock_owned().await
    }

    fn turn(&self, id: &str) -> Arc<Mutex<()>> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, turn| turn.strong_count() > 0);
        of.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::default();
            of.insert(id.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn one_at_a_time_of_the_same_name_and_nothing_is_kept() {
        let turns = Turns::default();
        let first = turns.take("a").now_or_never().expect("free");
        assert!(turns.take("a").now_or_never().is_none());
        let other = turns.take("b").now_or_never().expect("another one's");
        drop((first, other));
        drop(turns.take("a").now_or_never().expect("free again"));
        turns.turn("c");
        assert_eq!(turns.of.lock().expect("whole").keys().collect::<Vec<_>>(), ["c"]);
    }
}
