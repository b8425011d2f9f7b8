//! The settings of a platform of one machine, and what it remembers from its first start.

use super::PlatformError;
use heptad_client::local::is_root;
use heptad_control::OptimizeMode;
use heptad_member::handover::Inherited;
use heptad_model::{Bytes, CpuMillis, DeviceCounts, Disk, Mbps, ResourceVector, ids::is_label};
use heptad_store::{Disks, open_disks};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// Containers if this user may make them, else processes.
    #[default]
    Auto,
    /// Isolated containers; needs root.
    Oci,
    /// Plain processes with resource limits.
    Process,
}

/// How a platform of one machine is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All data, also the API's socket.
    pub data_dir: PathBuf,
    /// Where programs with a token reach the API; port 0 chooses one.
    pub listen: SocketAddr,
    /// Where requests from outside arrive. `None`: `INGRESS_DEFAULT`, or if that is taken a free port of loopback,
    /// which stays the same at later starts in the same directory.
    pub ingress: Option<SocketAddr>,
    /// What runs containers.
    pub driver: DriverChoice,
    /// An OCI runtime program instead of the one inside.
    pub oci_runtime: Option<PathBuf>,
    /// Registries that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// A file with user names and passwords of registries, as `docker login` writes it.
    pub registry_auth: Option<PathBuf>,
    /// The node's name; `None`: the host's name.
    pub node: Option<String>,
    /// How many devices of each kind the node has, such as GPUs.
    pub devices: DeviceCounts,
    /// What the optimiser of the placement does unasked.
    pub optimize: OptimizeMode,
    /// How often it does that, in milliseconds.
    pub optimize_interval_ms: u64,
    /// Whether everything is removed at the end.
    pub ephemeral: bool,
    /// Whether containers and their network end with the platform even if its data stays.
    pub ends_containers: bool,
    /// Listening sockets that the previous program handed over.
    pub inherited: Inherited,
    /// The program to start as shim, with its first arguments; `None`: this program.
    pub shim: Option<heptad_exec::ShimCommand>,
}

impl Settings {
    /// A platform in `data_dir` with defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ingress: None,
            driver: DriverChoice::Auto,
            oci_runtime: None,
            insecure_registries: Vec::new(),
            registry_auth: None,
            node: None,
            devices: DeviceCounts::new(),
            optimize: OptimizeMode::default(),
            optimize_interval_ms: 300_000,
            ephemeral: false,
            ends_containers: false,
            inherited: Inherited::default(),
            shim: None,
        }
    }

    /// The node's name: the one given, or as much of the host's as is valid.
    pub fn node_name(&self) -> Result<String, PlatformError> {
        if let Some(name) = &self.node {
            return match is_label(name) {
                true => Ok(name.clone()),
                false => Err(PlatformError::NodeName { name: name.clone() }),
            };
        }
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let host = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
        Ok(if is_label(&host) { host } else { "node".to_owned() })
    }
}

/// Where requests from outside arrive unless another address is chosen.
pub(super) const INGRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15_080);

/// The file that holds what a platform remembers from its first start.
pub const IDENTITY_FILE: &str = "platform.json";

/// What must stay the same at every start in one data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Tells the platforms of one machine apart: names of bridges, tables, control groups.
    pub(super) instance: String,
    /// The name of the node whose containers and data are here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// The range of service addresses.
    #[serde(default)]
    pub(super) service_cidr: Option<Ipv4Net>,
    /// The capacity of each storage disk, by its name. It stays fixed, because a disk that changes its size moves data.
    #[serde(default)]
    pub(super) disks: BTreeMap<String, u64>,
    /// Where requests from outside arrived at the last start that chose the address itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ingress: Option<SocketAddr>,
}

impl Identity {
    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(IDENTITY_FILE)
    }

    /// The identity of the platform in `data_dir`; creates one at its first start.
    pub(super) fn load(data_dir: &Path) -> Result<Self, PlatformError> {
        let file = Self::file(data_dir);
        match fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| PlatformError::Identity { file, source: source.into() })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let fresh = Self {
                    instance: draw_instance(),
                    node: None,
                    service_cidr: None,
                    disks: BTreeMap::new(),
                    ingress: None,
                };
                fresh.save(data_dir)?;
                Ok(fresh)
            }
            Err(source) => Err(PlatformError::Identity { file, source }),
        }
    }

    /// The name of the node of a platform on one machine: that of the first start in its directory, whatever the host is
    /// called now. Another one would be another node, and what runs here would be lost to it.
    pub(super) fn node_name(&mut self, settings: &Settings) -> Result<String, PlatformError> {
        match (&self.node, &settings.node) {
            (Some(kept), Some(asked)) if kept != asked => {
                Err(PlatformError::OtherNode { kept: kept.clone(), dir: settings.data_dir.clone() })
            }
            (Some(kept), _) => Ok(kept.clone()),
            (None, _) => {
                let name = settings.node_name()?;
                self.node = Some(name.clone());
                self.save(&settings.data_dir)?;
                Ok(name)
            }
        }
    }

    pub(super) fn save(&self, data_dir: &Path) -> Result<(), PlatformError> {
        let file = Self::file(data_dir);
        let write = || {
            let text = serde_json::to_vec_pretty(self)?;
            let fresh = file.with_extension("new");
            fs::write(&fresh, text)?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &file)
        };
        write().map_err(|source| PlatformError::Identity { file: file.clone(), source })
    }
}

/// The disks that a node offers to the storage of its cluster, and what it tells the servers about them.
pub(super) type Given = (Disks, Vec<Disk>);

impl Identity {
    /// Opens the disks of a node; each keeps the capacity that it had when it was new.
    pub(super) async fn disks(&mut self, data_dir: &Path) -> Result<Given, PlatformError> {
        let opened = open_disks(data_dir, &self.disks).await?;
        let now = opened.iter().map(|(disk, _)| (disk.name.clone(), disk.capacity_bytes)).collect();
        if self.disks != now {
            self.disks = now;
            self.save(data_dir)?;
        }
        Ok(opened.into_iter().map(|(told, disk)| ((told.name.clone(), disk), told)).unzip())
    }
}

/// Six random letters and digits.
fn draw_instance() -> String {
    let mut state = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    (0..6)
        .map(|_| {
            let digit = digits[(state % 36) as usize];
            state /= 36;
            char::from(digit)
        })
        .collect()
}

/// The part of the machine reserved for the system and the platform.
const RESERVE_PERCENT: u64 = 10;

/// How much of a machine with these resources containers may be given.
pub(super) fn capacity(facts: &heptad_exec::NodeFacts, data_dir: &Path) -> ResourceVector {
    let less = |amount: u64| amount - amount / 100 * RESERVE_PERCENT;
    // Whole MiB read better, and the remainder is no loss.
    let mib = |bytes: u64| Bytes::mib(less(bytes) >> 20);
    let disk = nix::sys::statvfs::statvfs(data_dir).map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
    ResourceVector {
        cpu_millis: CpuMillis(less(facts.cpu_millis)),
        memory: mib(facts.memory_bytes),
        storage: mib(disk),
        // No kernel tells the bandwidth of the uplink; a gigabit is what most machines have.
        network: Mbps(1_000),
    }
}

/// Which driver `choice` means here, or why that driver is not available.
pub(super) fn wants_containers(choice: DriverChoice, facts: &heptad_exec::NodeFacts) -> Result<bool, PlatformError> {
    let possible = facts.runs_containers && facts.nft && is_root();
    match choice {
        DriverChoice::Process => Ok(false),
        DriverChoice::Auto => Ok(possible),
        DriverChoice::Oci if possible => Ok(true),
        DriverChoice::Oci => {
            let mut missing = facts.missing.clone();
            if !facts.nft {
                missing.push("the program nft is not there; install the package nftables".to_owned());
            }
            Err(PlatformError::NoContainers { missing: missing.join("; ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_the_node_that_it_was_first() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let named = |name: Option<&str>| Settings { node: name.map(str::to_owned), ..Settings::new(dir.path()) };
        let start = |name| Identity::load(dir.path()).expect("an identity").node_name(&named(name));
        assert_eq!(start(Some("first")).expect("it is new"), "first");
        assert_eq!(start(None).expect("whatever the host is called"), "first");
        assert_eq!(start(Some("first")).expect("the same"), "first");
        let refused = start(Some("other")).expect_err("another").to_string();
        assert!(refused.contains("node first; leave --node out"), "{refused}");
    }
}
