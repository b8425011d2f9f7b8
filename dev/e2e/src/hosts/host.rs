//! One host: a machine as far as programs can tell. Network, mounts, process numbers, host name and control groups of its
//! own; the files of the real machine, but for a few. It can be powered off and on, paused, cut off, slowed and filled.

use super::{
    Network,
    groups::{Groups, hierarchies},
    init::Init,
    running::Running,
    wire::Wire,
};
use crate::{
    machine::{Process, pause, process, resume},
    program::{Program, Said, finish},
};
use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

const INIT: &str = include_str!("init.sh");
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LOG_LINES_SHOWN_MAX: usize = 150;
const GONE_SECONDS_MAX: u64 = 10;

/// How a host differs from others.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// Its data directory is a file system (ext4) of that size, of its own; without it, a directory.
    pub disk_mib: Option<u32>,
    /// Environment variables of its programs.
    pub environment: Vec<(String, String)>,
}

/// A host that is removed with its handle.
#[derive(Debug)]
pub struct Host {
    name: String,
    number: u8,
    options: HostOptions,
    dir: PathBuf,
    groups: Groups,
    init: Mutex<Option<Init>>,
    pub(super) wire: Arc<Wire>,
}

impl Host {
    pub(super) fn start(wire: &Arc<Wire>, name: &str, options: HostOptions) -> Self {
        let (number, dir) = (wire.number(), wire.dir.join(name));
        let groups = Groups::new(format!("{}/{name}", wire.name));
        let wire = wire.clone();
        let host = Self { name: name.to_owned(), number, options, dir, groups, init: Mutex::default(), wire };
        host.lay_out().unwrap_or_else(|error| panic!("the files of host {name} cannot be made: {error}"));
        host.boot();
        host
    }

    fn lay_out(&self) -> std::io::Result<()> {
        for dir in ["etc", "home", "data", "logs"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        fs::write(self.dir.join("etc/hostname"), format!("{}\n", self.name))?;
        fs::write(self.dir.join("etc/resolv.conf"), "")?;
        fs::write(self.dir.join("etc/hierarchies"), hierarchies().join("\n") + "\n")?;
        let mut names = self.wire.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.push((self.address(), self.name.clone()));
        let lines: String = names.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
        for (_, name) in names.iter() {
            let file = self.wire.dir.join(name).join("etc/hosts");
            fs::write(file, format!("127.0.0.1 localhost\n::1 localhost\n{lines}"))?;
        }
        if let Some(mib) = self.options.disk_mib {
            let disk = self.dir.join("disk").display().to_string();
            File::create(&disk)?.set_len(u64::from(mib) << 20)?;
            crate::run_tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-O", "^has_journal", &disk]);
        }
        Ok(())
    }

    fn init(&self) -> std::sync::MutexGuard<'_, Option<Init>> {
        self.init.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Powers it on. No program runs in it yet; its files are as they were.
    pub fn boot(&self) {
        let mut init = self.init();
        assert!(init.is_none(), "{} is on already", self.name);
        self.groups.create().unwrap_or_else(|error| panic!("control groups of {}: {error}", self.name));
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).args(self.doors());
        command.args(["--", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork"]);
        command.args(["--mount-proc", "sh", "-c", INIT, "sh"]).arg(&self.dir).args([&self.name, self.groups.path()]);
        let started = Init::start(&mut command, true);
        self.groups.settle().unwrap_or_else(|error| panic!("control groups of {}: {error}", self.name));
        self.wire.plug(self.number, started.pid);
        *init = Some(started);
    }

    /// The words of `ENTER` before the command.
    fn doors(&self) -> Vec<PathBuf> {
        self.groups.doors()
    }

    /// Takes its power: all of its processes are killed in one moment, containers too. What was written stays written; losing
    /// what was not synced needs a machine of its own.
    pub fn power_cut(&self) {
        let init = self.init().take().unwrap_or_else(|| panic!("{} is off already", self.name));
        self.wire.unplug(self.number);
        init.kill();
        let until = Instant::now() + Duration::from_secs(GONE_SECONDS_MAX);
        while !self.groups.pids().is_empty() {
            assert!(Instant::now() < until, "processes of {} live on: {:#?}", self.name, self.processes());
            std::thread::sleep(Duration::from_millis(2));
        }
        self.groups.remove();
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    fn pid(&self) -> i32 {
        self.init().as_ref().unwrap_or_else(|| panic!("{} is off", self.name)).pid
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Wire::address(self.number)
    }

    /// Its network.
    pub fn network(&self) -> Network {
        Network::of(self.pid())
    }

    /// Its own directory, at the same path inside and outside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its directory for data; with a disk of its own, only `inside` shows what is in it.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The path from the machine to what is at that path in the host.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A program in the host that has not begun. Its environment is only what is said here.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "sh"]).args(self.doors());
        command.args(["--", "nsenter", "--target", &self.pid().to_string(), "--all", "--"]);
        let home = self.dir.join("home");
        command.args(["env", "--ignore-environment", &format!("--chdir={}", home.display())]);
        command.arg(format!("PATH={PATH}")).arg(format!("HOME={}", home.display()));
        command.args(["USER=root", "LANG=C.UTF-8", "RUST_BACKTRACE=1"]);
        command.args(self.options.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub fn run(&self, words: &[&str]) -> Said {
        finish(&mut self.command(words), "")
    }

    /// Runs a program that must succeed; what it printed.
    pub fn ok(&self, words: &[&str]) -> String {
        let said = self.run(words);
        assert_eq!(said.code, 0, "on {}: {} failed: {}{}", self.name, words.join(" "), said.err, said.out);
        said.out
    }

    /// Starts a program and leaves it running; what it writes goes to the log of that name.
    pub fn spawn(&self, log: &str, words: &[&str]) -> Running {
        let path = self.dir.join("logs").join(log);
        let file = File::options().create(true).append(true).open(&path).expect("the log is opened");
        let mut command = self.command(words);
        let twice = file.try_clone().expect("the log is shared");
        let child = command.stdout(twice).stderr(file).spawn().expect("sh starts");
        Running::new(child, path)
    }

    /// Runs the program under test to its end.
    pub fn heptad(&self, args: &[&str]) -> Said {
        self.run(&[&[heptad_path().as_str()], args].concat())
    }

    /// Starts the program under test and leaves it running.
    pub fn spawn_heptad(&self, log: &str, args: &[&str]) -> Running {
        self.spawn(log, &[&[heptad_path().as_str()], args].concat())
    }

    /// All processes of the host, by their numbers on the machine.
    pub fn processes(&self) -> Vec<Process> {
        self.groups.pids().into_iter().filter_map(process).collect()
    }

    /// The processes in its containers.
    pub fn container_processes(&self) -> Vec<Process> {
        self.groups.pids_below("heptad-").into_iter().filter_map(process).collect()
    }

    /// Stops all its processes (SIGSTOP), as a machine that hangs: its network still answers for it.
    pub fn pause(&self) {
        // Twice, for those that were started meanwhile.
        for _ in 0..2 {
            pause(self.groups.pids());
        }
    }

    /// Lets all of them go on.
    pub fn resume(&self) {
        resume(self.groups.pids());
    }

    /// Fills its disk to the last byte.
    pub fn fill_disk(&self) {
        assert!(self.options.disk_mib.is_some(), "{} has no disk of its own", self.name);
        let filler = self.data_dir().join("filler").display().to_string();
        let said = self.run(&["sh", "-c", FILL, "sh", &filler]);
        assert!(said.err.contains("No space left"), "the disk of {} does not get full: {}", self.name, said.err);
    }

    /// Gives it back what `fill_disk` took.
    pub fn free_disk(&self) {
        let filler = self.data_dir().join("filler").display().to_string();
        self.ok(&["rm", "-f", &filler]);
    }

    /// Takes it off the network: no other host and no test reaches it, nor it them. It does not notice otherwise.
    pub fn cut(&self) {
        self.wire.cut(self.number);
    }

    /// Cuts the way between the two, in both directions.
    pub fn cut_from(&self, other: &Self) {
        self.cut_towards(other);
        other.cut_towards(self);
    }

    /// What this one sends does not arrive at the other.
    pub fn cut_towards(&self, other: &Self) {
        self.wire.cut_from_to(self.number, other.number);
    }

    /// At most so many bits in a second to it and from it.
    pub fn slow(&self, kbit: u32) {
        self.wire.slow(self.number, self.pid(), kbit);
    }

    /// At most so many bits in a second between the two, in each direction.
    pub fn slow_from(&self, other: &Self, kbit: u32) {
        self.wire.slow_from_to(self.number, other.number, kbit);
        self.wire.slow_from_to(other.number, self.number, kbit);
    }

    /// As fast as the machine again.
    pub fn quicken(&self) {
        self.wire.quicken(self.number, self.is_on().then(|| self.pid()));
    }

    /// The ends of its logs, for people who look for what went wrong.
    pub fn logs(&self) -> String {
        let mut out = String::new();
        let mut files: Vec<_> = fs::read_dir(self.dir.join("logs")).into_iter().flatten().flatten().collect();
        files.sort_by_key(fs::DirEntry::file_name);
        for file in files {
            let bytes = fs::read(file.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let left_out = lines.len().saturating_sub(LOG_LINES_SHOWN_MAX);
            out += &format!("--- {}: {}", self.name, file.file_name().display());
            out += &format!(" ({left_out} lines before) ---\n{}\n", lines[left_out..].join("\n"));
        }
        out
    }
}

/// Goes into control groups, whose files are the words before `--`, and becomes the command after it.
const ENTER: &str = "while [ \"$1\" != -- ]; do echo 0 > \"$1\" || exit 125; shift; done; shift; exec \"$@\"";

/// Again after each look at the disk itself: what was promised to waiting writes is given back then.
const FILL: &str = "for _ in 1 2 3; do cat /dev/zero >> \"$1\"; sync \"$1\"; done";

fn heptad_path() -> String {
    Program::find().path.display().to_string()
}

impl Drop for Host {
    #[expect(clippy::print_stderr, reason = "logs are shown when a test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("{}", self.logs());
        }
        drop(self.init().take());
        self.groups.remove();
    }
}
