//! How fast containers start: from `apply` to Running, beside `runc run` alone; and what an idle platform costs. Needs
//! root, the program `heptad` (built with --release) and Debian's runc and busybox-static.

use crate::{cpu, report};
use anyhow::{Context, Result, bail};
use heptad_api::{Manifest, operations::ApplyRequest};
use heptad_client::{Client, watch_state};
use heptad_model::{Bytes, Container, ContainerStatus, Namespace, Service};
use serde::Serialize;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program that is measured.
    #[arg(long, default_value = "target/release/heptad")]
    heptad: PathBuf,
    /// Rounds of one container each, alternating with runc.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Containers of the large deployment.
    #[arg(long, default_value_t = 50)]
    many: u32,
    /// Seconds for which the idle platform is watched.
    #[arg(long, default_value_t = 20)]
    idle_seconds: u64,
    /// Where the figures are written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Figures {
    ready_ms: f64,
    one_heptad_ms: f64,
    one_runc_ms: f64,
    one_ratio: f64,
    many: u32,
    many_heptad_ms: f64,
    many_runc_ms: f64,
    many_ratio: f64,
    idle: Vec<Idle>,
}

#[derive(Debug, Serialize)]
struct Idle {
    containers: u32,
    resident_mib: f64,
    shims_resident_mib: f64,
    cpu_percent: f64,
    written_bytes: u64,
}

/// A platform that is removed when this is dropped.
struct Platform {
    child: Child,
    /// Kept open: the platform writes more than is read.
    _output: BufReader<std::process::ChildStdout>,
    ready: Duration,
    client: Client,
}

impl Platform {
    fn start(program: &Path) -> Result<Self> {
        let began = Instant::now();
        let mut child =
            Command::new(program).arg("dev").stdout(Stdio::piped()).spawn().with_context(|| {
                format!("cannot start {}; build it with `cargo build --release`", program.display())
            })?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut output = BufReader::new(stdout);
        let (mut ready, mut line) = (None, String::new());
        while output.read_line(&mut line)? > 0 {
            if line.starts_with("Heptad runs") {
                ready = Some(began.elapsed());
            }
            if let Some(socket) = line.trim().strip_prefix("Socket") {
                let client = Client::unix(socket.trim());
                let ready = ready.context("it said that it runs before")?;
                return Ok(Self { child, _output: output, ready, client });
            }
            line.clear();
        }
        bail!("{} ended without being ready", program.display())
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // Interrupted as by a person, so that it removes everything; a failure shows in the next run.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let figures = runtime.block_on(measure(args))?;
    let row = |what: &str, ours: f64, theirs: f64, ratio: f64| {
        vec![what.to_owned(), format!("{ours:.1}"), format!("{theirs:.1}"), format!("{ratio:.2}")]
    };
    report::table(
        &["to Running", "heptad ms", "runc ms", "ratio"],
        &[
            row("1 container, median", figures.one_heptad_ms, figures.one_runc_ms, figures.one_ratio),
            row(
                &format!("{} containers", figures.many),
                figures.many_heptad_ms,
                figures.many_runc_ms,
                figures.many_ratio,
            ),
        ],
    );
    println!("\nheptad dev: ready after {:.0} ms", figures.ready_ms);
    let idle = |i: &Idle| {
        vec![
            i.containers.to_string(),
            format!("{:.1}", i.resident_mib),
            format!("{:.1}", i.shims_resident_mib),
            format!("{:.2}", i.cpu_percent),
            i.written_bytes.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = figures.idle.iter().map(idle).collect();
    report::table(&["containers", "RSS MiB", "shims' RSS MiB", "CPU % of a core", "bytes written"], &rows);
    report::write_json(args.json.as_deref(), &figures)
}

async fn measure(args: &Args) -> Result<Figures> {
    let bundle = Bundle::make()?;
    let platform = Platform::start(&args.heptad)?;
    let mut idle = vec![watch_idle(&platform, 0, args.idle_seconds).await?];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        ours.push(deploy(&platform.client, &format!("one-{round}"), 1).await?);
        remove(&platform.client, &format!("one-{round}")).await?;
        theirs.push(bundle.run(1)?);
    }
    let (one_heptad_ms, one_runc_ms) = (report::median(ours), report::median(theirs));
    let many_heptad_ms = deploy(&platform.client, "many", args.many).await?;
    idle.push(watch_idle(&platform, args.many, args.idle_seconds).await?);
    remove(&platform.client, "many").await?;
    let many_runc_ms = bundle.run(args.many)?;
    Ok(Figures {
        ready_ms: platform.ready.as_secs_f64() * 1000.0,
        one_heptad_ms,
        one_runc_ms,
        one_ratio: one_heptad_ms / one_runc_ms,
        many: args.many,
        many_heptad_ms,
        many_runc_ms,
        many_ratio: many_heptad_ms / many_runc_ms,
        idle,
    })
}

/// Milliseconds from the request until every container runs.
async fn deploy(client: &Client, name: &str, replicas: u32) -> Result<f64> {
    let mut containers = watch_state::<Container>(client);
    containers.synced().await;
    let mut service = Service::new(name, "host");
    service.command = vec!["sleep".to_owned(), "1000".to_owned()];
    service.replicas = replicas;
    // No CPU limit: it would slow the runtime's own set-up, which runs inside it, and runc has none here.
    service.resources.memory = Bytes::mib(16);
    service.stop_grace_ms = 0;
    let key = service.key();
    let began = Instant::now();
    client.apply(&ApplyRequest { objects: vec![Manifest::Service(service)] }).await?;
    loop {
        let view = containers.changed().await;
        let own = view.objects.values().map(|item| &item.object).filter(|c| c.service == key);
        if own.filter(|c| c.status == ContainerStatus::Running).count() == replicas as usize {
            return Ok(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
}

async fn remove(client: &Client, name: &str) -> Result<()> {
    let mut containers = watch_state::<Container>(client);
    let mut view = containers.synced().await;
    client.delete::<Service>(&Namespace::default(), name, None).await?;
    while view.objects.values().any(|item| item.object.service.name == name) {
        view = containers.changed().await;
    }
    Ok(())
}

async fn watch_idle(platform: &Platform, containers: u32, seconds: u64) -> Result<Idle> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pid = platform.child.id();
    let (cpu_before, written_before) = (cpu::of(pid)?, written_bytes(pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let spent = cpu::of(pid)?.saturating_sub(cpu_before);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(Idle {
        containers,
        resident_mib: mib(cpu::resident_bytes(pid)?),
        shims_resident_mib: mib(shims().into_iter().filter_map(|shim| cpu::resident_bytes(shim).ok()).sum()),
        cpu_percent: spent.as_secs_f64() / seconds as f64 * 100.0,
        written_bytes: written_bytes(pid)? - written_before,
    })
}

/// The processes that are shims.
fn shims() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_shim = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"shim")
    };
    pids.filter(is_shim).collect()
}

fn written_bytes(pid: u32) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).context("/proc/PID/io has no write_bytes")
}

/// A bundle of busybox for runc.
struct Bundle {
    dir: tempfile::TempDir,
}

/// Concurrent runs of runc: as many as the platform starts at once.
const RUNC_AT_ONCE: usize = 4;

impl Bundle {
    fn make() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin)?;
        std::fs::copy("/bin/busybox", bin.join("busybox")).context("install the package busybox-static")?;
        let made = Command::new("runc").arg("spec").current_dir(dir.path()).status();
        if !made.context("install the package runc")?.success() {
            bail!("`runc spec` failed");
        }
        let file = dir.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/bin/busybox", "sleep", "1000"]);
        std::fs::write(&file, serde_json::to_vec(&config)?)?;
        Ok(Self { dir })
    }

    fn runc(&self, id: &str, words: &[&str]) -> Result<Child> {
        let mut command = Command::new("runc");
        command.args(words).arg(id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.current_dir(self.dir.path()).spawn()?)
    }

    /// Milliseconds until `count` containers run; removes them afterwards.
    fn run(&self, count: u32) -> Result<f64> {
        let ids: Vec<String> = (0..count).map(|i| format!("bench-{}-{i}", std::process::id())).collect();
        let began = Instant::now();
        let started = self.all(&ids, &["run", "--detach"]);
        let took = began.elapsed().as_secs_f64() * 1000.0;
        self.all(&ids, &["delete", "--force"])?;
        started.map(|()| took)
    }

    fn all(&self, ids: &[String], words: &[&str]) -> Result<()> {
        for group in ids.chunks(RUNC_AT_ONCE) {
            let running: Vec<Child> = group.iter().map(|id| self.runc(id, words)).collect::<Result<_>>()?;
            for mut child in running {
                if !child.wait()?.success() {
                    bail!("`runc {}` failed", words.join(" "));
                }
            }
        }
        Ok(())
    }
}
