//! A node for one test: a directory, a driver, a busybox root file system, and the proof that nothing is left at the end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use heptad_exec::{
    ContainerSpec, ContainerState, Driver, ExecOutput, ExecRequest, Exit, ExitKind, LogItem, OciDriver, OciOptions,
    ProcessDriver, ProcessOptions, RootFs, ShimCommand, User,
};

const BUSYBOX: &str = "/usr/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "true", "false", "sleep", "cat", "echo", "id", "pwd", "env", "ls", "touch", "dd", "seq", "hostname", "kill",
    "mkdir", "mount", "unshare", "nc", "ping", "wc", "grep", "yes", "head", "setsid", "stat", "ps", "trap", "readlink",
    "find", "tr",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Oci,
    External,
    Process,
}

pub(super) struct Node {
    dir: tempfile::TempDir,
    instance: String,
    kind: Kind,
    driver: Option<Arc<dyn Driver>>,
}

impl Node {
    pub(super) fn oci() -> Self {
        Self::new(Kind::Oci)
    }

    pub(super) fn new(kind: Kind) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make real containers and need root");
        assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: install the Debian package busybox-static");
        let dir = tempfile::Builder::new().prefix("heptad-exec-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open for the test's other users");
        let name = dir.path().file_name().and_then(OsStr::to_str).expect("ASCII").to_owned();
        make_rootfs(&dir.path().join("busybox"));
        let mut node = Self { dir, instance: name.replace('.', ""), kind, driver: None };
        node.open();
        node
    }

    /// What an agent does when it starts.
    pub(super) fn open(&mut self) {
        let shim = ShimCommand { program: env!("CARGO_BIN_EXE_heptad-exec-test-shim").into(), args_prefix: vec![] };
        let dir = self.dir.path().join("driver");
        let driver = match self.kind {
            Kind::Process => ProcessDriver::open(ProcessOptions { dir, shim }),
            Kind::Oci | Kind::External => OciDriver::open(OciOptions {
                dir,
                shim,
                instance: self.instance.clone(),
                oci_runtime: (self.kind == Kind::External).then(runc),
                hidden_dirs: vec![],
            }),
        };
        self.driver = Some(driver.expect("the driver opens"));
    }

    /// As when an agent dies: the containers are on their own.
    pub(super) fn close(&mut self) {
        self.driver = None;
    }

    pub(super) fn driver(&self) -> &Arc<dyn Driver> {
        self.driver.as_ref().expect("open")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn bundle(&self, id: &str) -> PathBuf {
        self.path("driver/bundles").join(id)
    }

    pub(super) fn group_dirs(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .filter(|point| point.starts_with("/sys/fs/cgroup"))
            .map(|point| Path::new(point).join(format!("heptad-{}", self.instance)))
            .filter(|dir| dir.exists())
            .collect()
    }

    /// A container of busybox's files that runs a shell script.
    pub(super) fn script(&self, id: &str, script: &str) -> ContainerSpec {
        let rootfs = RootFs::Overlay { lower_dirs: vec![self.path("busybox")] };
        let mut spec = ContainerSpec::new(id, rootfs, ["sh", "-c", script].map(str::to_owned).to_vec());
        if self.kind == Kind::Process {
            spec.cwd = PathBuf::from("/tmp");
            spec.user = User::nobody();
            spec.capabilities.clear();
        }
        spec
    }

    pub(super) fn start(&self, spec: &ContainerSpec) -> i32 {
        match self.driver().start(spec).expect("starts").state {
            ContainerState::Running { pid } => pid,
            ContainerState::Exited(_) => 0,
        }
    }

    /// The directories of a container's own group, one for each hierarchy.
    pub(super) fn own_groups(&self, id: &str) -> Vec<PathBuf> {
        self.group_dirs().into_iter().map(|dir| dir.join(id)).filter(|dir| dir.exists()).collect()
    }

    /// Starts, waits for the end, returns how it ended and what it wrote.
    pub(super) fn run(&self, spec: &ContainerSpec) -> (Exit, String) {
        self.start(spec);
        let exit = self.driver().wait(&spec.id, Duration::from_secs(30)).expect("known").expect("ends within 30 s");
        (exit, self.output(&spec.id))
    }

    pub(super) fn output(&self, id: &str) -> String {
        let mut reader = self.driver().logs(id, None, false).expect("a log");
        let mut text = String::new();
        while let LogItem::Record(record) = reader.next(Duration::ZERO).expect("readable") {
            text.push_str(&record.log);
            text.push('\n');
        }
        text
    }

    pub(super) fn exec(&self, id: &str, script: &str) -> ExecOutput {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.driver().exec(id, &ExecRequest::new(args)).expect("the command runs")
    }

    fn remove_all(&mut self) {
        if self.driver.is_none() {
            self.open();
        }
        let driver = Arc::clone(self.driver());
        for status in driver.list() {
            let id = &status.spec.id;
            // What cannot be removed shows up as a trace.
            let _ = driver.stop(id, Some(Duration::ZERO)).and_then(|_| driver.remove(id));
        }
        self.close();
    }

    /// What a test left on the machine.
    fn traces(&self) -> Vec<String> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let mut found: Vec<String> = self.group_dirs().iter().map(|dir| dir.display().to_string()).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        found.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
        for entry in fs::read_dir("/proc").expect("readable").flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&dir) {
                found.push(command);
            }
        }
        found
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.remove_all();
        let traces = eventually(Duration::from_secs(30), || Some(self.traces()).filter(Vec::is_empty));
        if traces.is_none() && !std::thread::panicking() {
            panic!("left behind: {:#?}", self.traces());
        }
    }
}

pub(super) fn runc() -> PathBuf {
    let path = ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(PathBuf::from).find(|path| path.exists());
    path.expect("runc is missing: install the Debian package runc")
}

pub(super) fn code(exit: &Exit) -> i32 {
    match exit.how {
        ExitKind::Code(code) => code,
        other => panic!("ended by {other:?}"),
    }
}

/// What is reported at once about a container's end.
pub(super) fn told(ended: impl Future<Output = Option<Exit>>) -> Option<Exit> {
    ended.now_or_never().expect("the end is known, so it is told")
}

/// Asks repeatedly until there is an answer.
pub(super) fn eventually<T>(timeout: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn make_rootfs(dir: &Path) {
    for name in ["bin", "tmp", "etc", "proc", "sys", "dev", "root", "var"] {
        fs::create_dir_all(dir.join(name)).expect("a directory");
    }
    fs::copy(BUSYBOX, dir.join("bin/busybox")).expect("busybox is copied");
    for applet in APPLETS {
        symlink("busybox", dir.join("bin").join(applet)).expect("a link");
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("open to all");
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("written");
}
