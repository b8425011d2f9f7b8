//! Integration tests of the stores: one conformance suite for all backends, and what only the durable one promises.
//! Knows nothing of what is stored.

mod backups;
mod conformance;
mod disk_full;
mod durable;
mod etcd;
mod faults;
mod history;
mod kill;
mod migration;
mod model;
mod secure;
mod support;

/// Runs the conformance suite on one backend; the expression makes a fresh store and what keeps it alive.
macro_rules! conforms {
    ($backend:ident, $fresh:expr) => {
        mod $backend {
            conforms!(@cases $fresh;
                revisions_count_changes, keys_count_their_changes, compares_decide_the_branch,
                later_operations_see_earlier_ones, transactions_are_whole, ranges_are_ordered_and_paged,
                ranges_read_the_past, compaction_ends_the_past, watches_deliver_whole_revisions,
                watches_resume_anywhere, watches_wait_for_the_future, watches_say_compacted,
                slow_watchers_miss_nothing, many_watchers_agree, limits_are_kept, increments_are_not_lost,
                odd_keys_are_keys
            );
        }
    };
    (@cases $fresh:expr; $($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _alive) = $fresh;
                crate::conformance::$case(store).await;
            }
        )*
    };
}

conforms!(memory, crate::support::memory());
conforms!(embedded, crate::support::embedded());
conforms!(embedded_without_memory, crate::support::embedded_from_disk());
conforms!(etcd_cluster, crate::etcd::fresh().await);
conforms!(etcd_without_memory, crate::etcd::fresh_without_memory().await);
