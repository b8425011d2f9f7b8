//! Finds the process behind a loopback connection, where no namespace identifies the caller: /proc/net/tcp, then open
//! files. Blocking and read-only. Call it from a blocking thread: its cost grows with the sockets and files of the
//! host.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use crate::{Error, Result};

/// How many processes of one tree are examined; a tree that grows beyond this hides only itself.
const TREE_PROCESSES_MAX: usize = 4096;

/// The client side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Inode of the client's socket.
    pub inode: u64,
    /// User who made the socket.
    pub uid: u32,
    /// Processes below the given roots that hold the socket open.
    pub holders: Vec<Holder>,
}

/// A process that holds the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The candidate in whose tree it is.
    pub root: u32,
    /// The process itself.
    pub pid: u32,
}

/// The process at the other end of a connection that was accepted on this host: `peer` is the client's address as the
/// server sees it, `local` the server's. `roots` are the main processes of the candidates; their descendants count as
/// theirs. `None`: there is no such connection here (any more).
///
/// # Errors
/// If /proc cannot be read.
pub fn owner_of_connection(peer: SocketAddr, local: SocketAddr, roots: &[u32]) -> Result<Option<SocketOwner>> {
    let Some((inode, uid)) = find_socket(peer, local)? else { return Ok(None) };
    let target = format!("socket:[{inode}]");
    let children = children_of_all()?;
    let mut holders = Vec::new();
    for root in roots {
        let holding = tree(*root, &children).into_iter().filter(|pid| holds(*pid, &target));
        holders.extend(holding.map(|pid| Holder { root: *root, pid }));
    }
    Ok(Some(SocketOwner { inode, uid, holders }))
}

/// An IPv6 socket may carry an IPv4 connection, so both tables are looked at.
fn find_socket(peer: SocketAddr, local: SocketAddr) -> Result<Option<(u64, u32)>> {
    for name in ["tcp", "tcp6"] {
        let path = PathBuf::from("/proc/thread-self/net").join(name);
        match fs::read_to_string(&path) {
            Ok(table) => {
                if let Some(found) = table.lines().skip(1).find_map(|line| match_line(line, peer, local)) {
                    return Ok(Some(found));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    Ok(None)
}

/// `sl local_address rem_address st queues timer retransmits uid timeout inode ...`, seen from the client.
fn match_line(line: &str, peer: SocketAddr, local: SocketAddr) -> Option<(u64, u32)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, from, to, _, _, _, _, uid, _, inode, ..] = fields.as_slice() else { return None };
    let same = parse_address(from)? == canonical(peer) && parse_address(to)? == canonical(local);
    // A connection closed by its process keeps its line, but has no inode.
    let inode = inode.parse().ok().filter(|inode| *inode != 0)?;
    same.then_some((inode, uid.parse().ok()?))
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Hexadecimal words in the byte order of the machine, then the port.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

fn children_of_all() -> Result<BTreeMap<u32, Vec<u32>>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").map_err(Error::io("list", "/proc"))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // A process that ended meanwhile has no parent.
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    Ok(children)
}

/// The fourth field of `stat`; the second, the name, may hold spaces and parentheses of its own.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_parent(&stat)
}

fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn tree(root: u32, children: &BTreeMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() && found.len() < TREE_PROCESSES_MAX {
        let below = children.get(&found[at]).into_iter().flatten().copied();
        let new: Vec<u32> = below.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        at += 1;
    }
    found
}

fn holds(pid: u32, target: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == target))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
        process::{Command, Stdio},
    };

    use super::*;

    fn connected(listen: &str, connect: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let client = TcpStream::connect(format!("{connect}:{port}")).expect("connects to itself");
        let (server, _) = listener.accept().expect("accepts");
        (client, server)
    }

    fn owner(server: &TcpStream, roots: &[u32]) -> Option<SocketOwner> {
        let (peer, local) = (server.peer_addr().expect("peer"), server.local_addr().expect("local"));
        owner_of_connection(peer, local, roots).expect("/proc is readable")
    }

    #[test]
    fn a_connection_of_this_process_is_found() {
        let me = std::process::id();
        let (client, server) = connected("127.0.0.1:0", "127.0.0.1");
        let found = owner(&server, &[1_999_999_999, me]).expect("the connection exists");
        assert_eq!(found.holders, [Holder { root: me, pid: me }]);
        drop(client);
        assert!(owner(&server, &[me]).is_none(), "a closed client has no owner");
    }

    #[test]
    fn an_ipv4_client_of_a_dual_socket_is_found() {
        let (_client, server) = connected("[::]:0", "127.0.0.1");
        assert!(owner(&server, &[std::process::id()]).is_some_and(|found| !found.holders.is_empty()));
    }

    #[test]
    fn a_socket_held_by_a_grandchild_belongs_to_the_root() {
        let (client, server) = connected("127.0.0.1:0", "127.0.0.1");
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60; true"])
            .stdin(Stdio::from(OwnedFd::from(client)))
            .stdout(Stdio::null())
            .spawn()
            .expect("sh starts");
        let found = owner(&server, &[child.id()]);
        let others = owner(&server, &[1_999_999_999]);
        for process in found.iter().flat_map(|found| &found.holders) {
            let pid = nix::unistd::Pid::from_raw(process.pid.try_into().expect("a pid"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        child.wait().expect("sh ended");
        let holders = found.expect("the connection exists").holders;
        assert!(!holders.is_empty() && holders.iter().all(|holder| holder.root == child.id()), "{holders:?}");
        assert!(others.expect("the connection exists").holders.is_empty());
    }

    #[test]
    fn odd_names_and_lines_are_read() {
        assert_eq!(parse_parent("7 (a) b (c)) S 42 7 7 0"), Some(42));
        assert_eq!(parse_parent("7 a"), None);
        assert_eq!(parse_address("0100007F:1F90"), Some((Ipv4Addr::LOCALHOST.into(), 8080)));
        assert_eq!(parse_address("0000000000000000FFFF00000100007F:0050"), Some((Ipv4Addr::LOCALHOST.into(), 80)));
        for bad in ["", ":", "zz:1", "0100007F", "0100007F:", "é100007:1F90"] {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
    }
}
