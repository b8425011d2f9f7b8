//! Whole platforms: the real program with real containers, networks and disks, used as people use it. Needs root and the
//! Debian packages that `cargo xtask test` installs; fails where they are missing.
#![forbid(unsafe_code)]

mod bounds;
mod cluster;
mod commands;
mod demo;
mod devices;
mod document;
mod etcd;
mod hosts;
mod images;
mod isolation;
mod lifecycle;
mod manifests;
mod power;
mod refusals;
mod rolling;
mod settings;
mod storage;
mod streams;
mod survival;

/// A service of the example shop under that name; answers `/` and `/healthz` on 8080.
fn stock(name: &str, more: &str) -> String {
    format!(
        "service: {name}\nimage: host\ncommand: [heptad, example-service, stock]\nports: [8080]\n\
         resources: {{ cpu: 50m, memory: 64Mi }}\n\
         health_check: {{ http: {{ path: /healthz }}, interval_ms: 200 }}\n{more}"
    )
}

/// A service that runs a shell line in the image `host`.
fn shell(name: &str, line: &str, more: &str) -> String {
    let line = serde_json::Value::from(line);
    format!(
        "service: {name}\nimage: host\ncommand: [/bin/sh, -c, {line}]\nresources: {{ cpu: 50m, memory: 64Mi }}\n\
         stop_grace_ms: 300\n{more}"
    )
}

/// What must not change about containers that keep running: names, restarts, start times.
fn essence(all: &[heptad_model::Container]) -> Vec<(String, u32, Option<u64>)> {
    all.iter().map(|c| (c.id.to_string(), c.restarts, c.started_at_ms)).collect()
}
