//! Time and randomness of the whole process while a simulation runs on this thread: the C library's two functions for
//! them are replaced, so that whatever a crate does below us follows from the seed. Other threads see the real ones.

use std::{cell::Cell, time::Duration};

/// 2026-01-01 in seconds since the Unix epoch: when every simulated world begins.
const EPOCH_S: i64 = 1_767_225_600;
/// What the monotonic clock says then; not zero, so that there is a time before it.
const MONOTONIC_S: i64 = 1_000_000;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static ELAPSED_NS: Cell<u64> = const { Cell::new(0) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// From now on time stands still on this thread, and randomness follows from the seed.
pub(crate) fn begin(seed: u64) {
    RANDOM.set(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d);
    ELAPSED_NS.set(0);
    ACTIVE.set(true);
}

/// Moves the clock.
pub(crate) fn set_elapsed(elapsed: Duration) {
    ELAPSED_NS.set(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
}

/// Simulated time since the beginning.
pub(crate) fn elapsed() -> Duration {
    Duration::from_nanos(ELAPSED_NS.get())
}

fn next_random() -> u64 {
    let mut x = RANDOM.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    RANDOM.set(x);
    x.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// Takes the place of the C library's `getrandom`.
///
/// # Safety
/// As the original: `buffer` must be writable for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !ACTIVE.get() {
        // SAFETY: the arguments are handed on as they came.
        let done = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return done as libc::ssize_t;
    }
    if length == 0 {
        return 0;
    }
    // SAFETY: the caller promises that the buffer is writable for that length, which is not zero.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next_random().to_le_bytes()[..chunk.len()]);
    }
    length as libc::ssize_t
}

/// Takes the place of the C library's `clock_gettime`.
///
/// # Safety
/// As the original: `time` must be writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let begun_s = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH_S,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            MONOTONIC_S
        }
        // Clocks of CPU time are nobody's input.
        _ => return real(clock, time),
    };
    if !ACTIVE.get() || time.is_null() {
        return real(clock, time);
    }
    let elapsed = ELAPSED_NS.get();
    let tv_sec = begun_s + libc::time_t::try_from(elapsed / 1_000_000_000).unwrap_or(0);
    let tv_nsec = libc::c_long::try_from(elapsed % 1_000_000_000).unwrap_or(0);
    // SAFETY: the caller promises that `time` is writable.
    unsafe { time.write(libc::timespec { tv_sec, tv_nsec }) };
    0
}

fn real(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the arguments are handed on as they came.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    done as libc::c_int
}
