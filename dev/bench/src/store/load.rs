//! Clients that write as fast as they are answered, and what one round of them measured. Knows no store.

use crate::cpu;
use anyhow::Result;
use std::{
    future::Future,
    time::{Duration, Instant},
};

/// A store under test.
pub(super) trait Target {
    type Client: Client;

    /// A client of its own for the `index`th task.
    fn client(&self, index: usize) -> Self::Client;

    /// The process that does the store's work.
    fn pid(&self) -> u32;
}

pub(super) trait Client: Send + 'static {
    /// Returns when the write is durable.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> impl Future<Output = Result<()>> + Send;
}

#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) clients: usize,
    pub(super) value_bytes: usize,
    pub(super) keys: usize,
    pub(super) time: Duration,
}

/// What one round measured.
pub(super) struct Round {
    time: Duration,
    cpu: Duration,
    client_cpu: Duration,
    /// In microseconds, sorted.
    latencies: Vec<u32>,
}

impl Load {
    pub(super) async fn run(&self, target: &impl Target) -> Result<Round> {
        let (cpu, client_cpu, start) = (cpu::of(target.pid())?, cpu::of(std::process::id())?, Instant::now());
        let until = start + self.time;
        let clients = (0..self.clients).map(|index| tokio::spawn(self.write(index, target.client(index), until)));
        let mut latencies = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            latencies.append(&mut client.await??);
        }
        let time = start.elapsed();
        let (cpu, client_cpu) = (cpu::of(target.pid())? - cpu, cpu::of(std::process::id())? - client_cpu);
        latencies.sort_unstable();
        Ok(Round { time, cpu, client_cpu, latencies })
    }

    fn write<C: Client>(
        &self,
        index: usize,
        mut client: C,
        until: Instant,
    ) -> impl Future<Output = Result<Vec<u32>>> + Send + use<C> {
        let Self { clients, keys, value_bytes, .. } = *self;
        async move {
            let mut latencies = Vec::new();
            let mut key = index;
            while Instant::now() < until {
                let (name, value) = (format!("bench/key/{key:010}").into_bytes(), value_of(key, value_bytes));
                let start = Instant::now();
                client.put(name, value).await?;
                latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
                key = (key + clients) % keys;
            }
            Ok(latencies)
        }
    }
}

/// Bytes that do not compress well, different for each key.
fn value_of(key: usize, bytes: usize) -> Vec<u8> {
    let mut state = key as u64 | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| byte()).collect()
}

impl Round {
    fn txns(&self) -> f64 {
        self.latencies.len().max(1) as f64
    }

    pub(super) fn txns_per_second(&self) -> f64 {
        self.txns() / self.time.as_secs_f64()
    }

    pub(super) fn cpu_us_per_txn(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.txns()
    }

    pub(super) fn client_cpu_us_per_txn(&self) -> f64 {
        self.client_cpu.as_secs_f64() * 1e6 / self.txns()
    }

    pub(super) fn latency_us(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(index).copied().map_or(f64::NAN, f64::from)
    }
}
