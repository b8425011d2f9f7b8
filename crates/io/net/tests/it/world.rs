//! A separate host for each test, with an outside world next to it. Knows no test.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use heptad_net::{Attachment, HostPort, Network, Options, Protocol};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, connect, recv, send, setsockopt,
            socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
    unistd::geteuid,
};
use tempfile::TempDir;

pub(crate) const HOST_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const PROXY_PORT: u16 = 15001;
/// Long enough for any answer on one machine, short enough to wait for in tests of what is blocked.
const CONNECT_MS_MAX: u64 = 1_000;

/// The host of one test.
pub(crate) struct World {
    dir: TempDir,
    outside: PathBuf,
}

/// Runs the test on a thread whose namespaces are the host.
pub(crate) fn on_a_host<F, Fut>(test: F)
where
    F: FnOnce(World) -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    require("nft", "nftables");
    require("ip", "iproute2");
    require("nsenter", "util-linux");
    assert!(geteuid().is_root(), "this test makes network namespaces: run it as root");
    let host = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces of a test host");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { test(World::new()).await });
    });
    if let Err(panic) = host.join() {
        resume_unwind(panic);
    }
}

fn require(program: &str, package: &str) {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
    assert!(found, "this test needs the program `{program}`: install the package `{package}`");
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let outside = dir.path().join("outside");
        let pin = outside.clone();
        File::create(&pin).expect("a file to pin the outside");
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the outside");
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), &pin, none, MsFlags::MS_BIND, none).expect("pin the outside");
        })
        .join()
        .expect("the outside is made");
        let world = Self { dir, outside };
        world.wire();
        world
    }

    fn wire(&self) {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "ext0", "type", "veth", "peer", "name", "ext1"]);
        let ns = format!("--net={}", self.outside.display());
        run("nsenter", &[&ns, "ip", "link", "set", "lo", "up"]);
        run("ip", &["link", "set", "ext1", "netns", &self.outside.to_string_lossy()]);
        run("ip", &["addr", "add", &format!("{HOST_IP}/24"), "dev", "ext0"]);
        run("ip", &["link", "set", "ext0", "up"]);
        run("nsenter", &[&ns, "ip", "addr", "add", &format!("{OUTSIDE_IP}/24"), "dev", "ext1"]);
        run("nsenter", &[&ns, "ip", "link", "set", "ext1", "up"]);
        run("ip", &["route", "add", "default", "via", &OUTSIDE_IP.to_string()]);
        assert!(eventually(|| !run("ip", &["route"]).contains("linkdown")), "the link to the outside comes up");
        let bridge_filter = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if bridge_filter.exists() {
            fs::write(bridge_filter, "1").expect("the common default of hosts");
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("forwarding is off on a fresh host");
    }

    pub(crate) fn options(&self, instance: &str) -> Options {
        let dir = self.dir.path().join(instance);
        Options { instance: instance.into(), dir, proxy_port: PROXY_PORT, ..Options::default() }
    }

    pub(crate) async fn open(&self) -> Network {
        self.reopen(&[]).await
    }

    pub(crate) async fn reopen(&self, alive: &[&str]) -> Network {
        Network::open(self.options("t0"), &ids(alive)).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Replaces this host's `nft` by one that holds back transactions that contain `text` until it is released.
    pub(crate) fn hold_nft(&self, text: &str) -> HeldNft {
        let [asked, answer, real, script] = ["asked", "answer", "nft", "nft.sh"].map(|name| self.dir.path().join(name));
        let program = ["/usr/sbin/nft", "/sbin/nft"].into_iter().find(|path| Path::new(path).exists()).expect("nft");
        fs::copy(program, &real).expect("copied");
        let lines = format!(
            "#!/bin/sh\ninput=$(cat)\ncase $input in *'{text}'*)\n    touch {asked}\n    \
             while [ ! -e {answer} ]; do sleep 0.01; done\n    echo refused >&2; exit 1;;\nesac\n\
             printf '%s\\n' \"$input\" | {real} \"$@\"\n",
            asked = asked.display(),
            answer = answer.display(),
            real = real.display(),
        );
        fs::write(&script, lines).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        let none: Option<&str> = None;
        mount(Some(&script), program, none, MsFlags::MS_BIND, none).expect("in the place of nft");
        HeldNft { asked, answer }
    }

    /// Runs `work` in the outside.
    pub(crate) async fn outside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.outside, work).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A failed test leaves pins; the directory could not be removed below them.
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let pins = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for pin in pins.filter(|pin| Path::new(pin).starts_with(self.dir.path())) {
            let _ = umount2(pin, MntFlags::MNT_DETACH);
        }
    }
}

/// An `nft` of this host that delays transactions that contain a certain text.
pub(crate) struct HeldNft {
    asked: PathBuf,
    answer: PathBuf,
}

impl HeldNft {
    /// Returns when somebody waits for it.
    pub(crate) async fn asked(&self) {
        while !self.asked.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// From now on it rejects that at once.
    pub(crate) fn refuse(&self) {
        fs::write(&self.answer, "").expect("written");
    }
}

pub(crate) fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

pub(crate) fn port(host_port: u16, container_port: u16, protocol: Protocol) -> HostPort {
    HostPort { host_port, container_port, protocol }
}

/// Runs a program to its end; its output, and whether it succeeded.
pub(crate) fn output(program: &str, args: &[&str]) -> (bool, String) {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let out = Command::new(program).args(args).env("PATH", path).output().expect("the program starts");
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let (ok, text) = output(program, args);
    assert!(ok, "{program} {args:?}: {text}");
    text
}

/// A process in the container's network namespace, while this host's tasks go on.
pub(crate) async fn process(container: &Attachment, args: &[&str]) -> (bool, String) {
    let mut all = vec![format!("--net={}", container.netns_path.display())];
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    blocking(move || output("nsenter", &all.iter().map(String::as_str).collect::<Vec<_>>())).await
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Runs `work` on a thread of its own in the pinned namespace.
pub(crate) async fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).expect("the namespace is pinned");
    blocking(move || {
        let entered = thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        });
        entered.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
    .await
}

/// Accepts connections for ever, and tells each client who called.
pub(crate) fn greeter(at: impl Into<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind(at.into()).expect("a listener");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
    address
}

/// Answers datagrams with the caller's address.
pub(crate) fn udp_greeter(at: impl Into<SocketAddr>) {
    let socket = UdpSocket::bind(at.into()).expect("a socket");
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

/// What a greeter says, or why it was not reached.
pub(crate) fn greeting(to: impl Into<SocketAddr>) -> io::Result<String> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    let mut stream = TcpStream::connect_timeout(&to.into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

pub(crate) fn udp_greeting(to: impl Into<SocketAddr>) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(CONNECT_MS_MAX)))?;
    socket.connect(to.into())?;
    socket.send(b"hello")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// One echo request, as an unprivileged process sends it.
pub(crate) fn echo(ip: Ipv4Addr) -> nix::Result<()> {
    const REQUEST: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, 1];
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::new(1, 0))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, 0)))?;
    send(socket.as_raw_fd(), &REQUEST, MsgFlags::empty())?;
    recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::empty()).map(drop)
}

/// For what the kernel does in the background.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    (0..60).any(|_| {
        let holds = condition();
        if !holds {
            thread::sleep(Duration::from_millis(50));
        }
        holds
    })
}
