//! Memory that a busy time leaves behind: a long-running program returns it to the system, because its allocator does
//! not.

use std::time::Duration;
use tokio::{task::spawn_blocking, time::sleep};

/// How often. A pass takes milliseconds, and how much is free inside the allocator cannot be seen from outside.
const INTERVAL_MS: u64 = 30_000;

/// Returns memory for ever.
pub(crate) async fn give_back() {
    loop {
        sleep(Duration::from_millis(INTERVAL_MS)).await;
        // A pass that broke off is tried again.
        let _ = spawn_blocking(heptad_exec::give_back_memory).await;
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::io;

    /// How much of the machine's memory this process uses, files excluded.
    fn anonymous_bytes() -> io::Result<u64> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other("the kernel does not say how much memory is used"))
    }

    #[test]
    fn what_was_freed_below_something_that_is_held_is_given_back() {
        const PIECES: usize = 100_000;
        const MIB: u64 = 1 << 20;
        let pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; 1_000]).collect();
        let held = vec![1_u8; 1_000];
        let full = anonymous_bytes().expect("a number");
        drop(pieces);
        let kept = anonymous_bytes().expect("a number");
        assert!(kept + 20 * MIB > full, "the allocator gives it back by itself: {kept} of {full}");
        heptad_exec::give_back_memory();
        let left = anonymous_bytes().expect("a number");
        assert!(left + 80 * MIB < full, "{left} of {full} are left");
        assert_eq!(held.len(), 1_000);
    }
}
