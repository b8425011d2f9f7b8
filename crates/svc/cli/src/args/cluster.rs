//! The commands that make machines a cluster and give people access to it, as values. Does nothing.

use super::{DriverChoice, Run};
use clap::{Args, Subcommand};
use heptad_model::DeviceCounts;
use ipnet::Ipv4Net;
use std::{net::SocketAddr, path::PathBuf};

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Server {
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
    #[command(flatten)]
    pub run: Run,
    /// In a cluster: run no containers on this machine
    #[arg(long, env = "HEPTAD_NO_AGENT")]
    pub no_agent: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ServerCommand {
    /// Make a new cluster in the data directory; start it with `heptad server`
    Init(ServerInit),
    /// Become a further server of a cluster whose state is in etcd, and run
    Join(ServerJoin),
}

/// An etcd cluster with the state, instead of the data directory.
#[derive(Clone, Debug, Default, Args)]
pub struct Etcd {
    /// The etcd cluster that has the state: URLs of its members, with `http://` or `https://` and port
    #[arg(long = "etcd", env = "HEPTAD_ETCD", value_name = "URL,URL", value_delimiter = ',')]
    pub urls: Vec<String>,
    /// The CA certificates that verify etcd's members (PEM)
    #[arg(long = "etcd-ca", env = "HEPTAD_ETCD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate to present to etcd (PEM)
    #[arg(long = "etcd-cert", env = "HEPTAD_ETCD_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long = "etcd-key", env = "HEPTAD_ETCD_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The user of etcd, if it asks for one
    #[arg(long = "etcd-user", env = "HEPTAD_ETCD_USER", value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// The file with that user's password
    #[arg(long = "etcd-password-file", env = "HEPTAD_ETCD_PASSWORD_FILE", value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct ServerInit {
    /// Where all data is kept
    #[arg(long, env = "HEPTAD_DATA_DIR", value_name = "DIR", default_value = "/var/lib/heptad")]
    pub data_dir: PathBuf,
    /// Where others reach the API of this server; the port is 7443 unless it is given
    #[arg(long, env = "HEPTAD_ADVERTISE", value_name = "IP[:PORT]")]
    pub advertise: String,
    /// The name of this server, and of its node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The domain of all names in certificates
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub trust_domain: String,
    /// The range of service addresses on all nodes
    /// [default: 10.96.0.0/16; 127.96.0.0/16 where containers cannot be made]
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<Ipv4Net>,
    #[command(flatten)]
    pub etcd: Etcd,
    /// The name of the administrator's new context, for `heptad --context`
    #[arg(long, default_value = "admin", value_name = "NAME")]
    pub context_name: String,
}

/// What a machine needs to join.
#[derive(Clone, Debug, Args)]
pub struct Joining {
    /// A server of the cluster, such as https://10.0.0.1:7443
    #[arg(value_name = "URL")]
    pub url: String,
    /// The join token; `-`: the standard input has it. Or name its file with --token-file
    #[arg(long, env = "HEPTAD_JOIN_TOKEN", hide_env_values = true, value_name = "ID.SECRET")]
    pub token: Option<String>,
    /// The pin of the cluster's CA
    #[arg(long, env = "HEPTAD_CA_PIN", value_name = "sha256:HEX")]
    pub ca_pin: String,
    /// The name of this machine in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where others reach this machine [default: the address from which it reaches the server]
    #[arg(long, env = "HEPTAD_ADVERTISE", value_name = "IP[:PORT]")]
    pub advertise: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct ServerJoin {
    #[command(flatten)]
    pub joining: Joining,
    #[command(flatten)]
    pub run: Run,
    /// Run no containers on this machine
    #[arg(long, env = "HEPTAD_NO_AGENT")]
    pub no_agent: bool,
}

/// How an agent runs.
#[derive(Clone, Debug, Args)]
pub struct AgentRun {
    /// Where all data is kept
    #[arg(long, env = "HEPTAD_DATA_DIR", value_name = "DIR", default_value = "/var/lib/heptad")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub machine: Machine,
}

/// What runs containers on a machine, and what the machine offers them.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Where requests from outside arrive for services with `expose` [default: 127.0.0.1:15080, or a free
    /// port where that is taken; the same at each start in one directory]
    #[arg(long, env = "HEPTAD_INGRESS", value_name = "IP:PORT")]
    pub ingress: Option<SocketAddr>,
    /// What runs containers
    #[arg(long, env = "HEPTAD_DRIVER", value_enum, default_value_t)]
    pub driver: DriverChoice,
    /// An OCI runtime program (such as runc) instead of the one inside
    #[arg(long, env = "HEPTAD_OCI_RUNTIME", value_name = "PROGRAM")]
    pub oci_runtime: Option<PathBuf>,
    /// A registry to use without TLS; may be repeated
    #[arg(long = "insecure-registry", env = "HEPTAD_INSECURE_REGISTRY", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,
    /// User names and passwords of registries: a file as `docker login` writes it
    #[arg(long, env = "HEPTAD_REGISTRY_AUTH", value_name = "FILE")]
    pub registry_auth: Option<PathBuf>,
    /// Devices for containers: the kind and their number, such as gpu=8; may be repeated
    #[arg(
        long = "device",
        env = "HEPTAD_DEVICE",
        value_name = "KIND=COUNT",
        value_delimiter = ',',
        value_parser = device
    )]
    pub devices: Vec<(String, u32)>,
}

impl Machine {
    /// How many devices there are of each kind; if a kind is named twice, the last count applies.
    pub fn devices(&self) -> DeviceCounts {
        self.devices.iter().cloned().collect()
    }
}

fn device(text: &str) -> Result<(String, u32), String> {
    let (kind, count) = label(text).map_err(|_| format!("`{text}` is not KIND=COUNT, such as gpu=8"))?;
    let count: u32 = count.parse().map_err(|_| format!("`{count}` is no number of devices"))?;
    let problems = heptad_model::devices::device_problems(&[(kind.clone(), count)].into());
    match problems.into_iter().next() {
        Some(problem) => Err(problem.message),
        None => Ok((kind, count)),
    }
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Agent {
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    #[command(flatten)]
    pub run: AgentRun,
}

#[derive(Clone, Debug, Subcommand)]
pub enum AgentCommand {
    /// Become a node of a cluster, and run; `heptad node join-token` prints the whole line
    Join(AgentJoin),
}

#[derive(Clone, Debug, Args)]
pub struct AgentJoin {
    #[command(flatten)]
    pub joining: Joining,
    /// A label of the node, such as zone=a; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Only join; run later with `heptad agent`
    #[arg(long)]
    pub no_run: bool,
    #[command(flatten)]
    pub run: AgentRun,
}

/// `KEY=VALUE`, or `KEY-` for a label to remove.
pub(super) fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    match text.strip_suffix('-').filter(|key| !key.is_empty() && !key.contains('=')) {
        Some(key) => Ok((key.to_owned(), None)),
        None => label(text).map(|(key, value)| (key, Some(value))).map_err(|error| format!("{error}, and not KEY-")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    if key.is_empty() {
        return Err(format!("`{text}` has no key"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Clone, Debug, Args)]
pub struct Login {
    /// A server of the cluster, such as https://10.0.0.1:7443
    #[arg(value_name = "URL")]
    pub url: String,
    /// Your token; an administrator makes one with `heptad token create`. `-`: the standard input has it. Or name its file
    /// with --token-file
    #[arg(long, env = "HEPTAD_TOKEN", hide_env_values = true, value_name = "ID.SECRET")]
    pub token: Option<String>,
    /// The pin of the cluster's CA
    #[arg(long, env = "HEPTAD_CA_PIN", value_name = "sha256:HEX")]
    pub ca_pin: String,
    /// The name of the new context
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub name: String,
}

#[derive(Clone, Debug, Subcommand)]
pub enum ContextCommand {
    /// List the clusters that you are logged in to
    List,
    /// Use this one from now on (`local`: this machine's platform)
    Use { name: String },
    /// Show the one in use, without its token
    Show { name: Option<String> },
    /// Forget one
    Remove { name: String },
}

#[derive(Clone, Debug, Args)]
pub struct Upgrade {
    /// The data directory of the server or agent on this machine that is to start its program file anew
    #[arg(long, env = "HEPTAD_DATA_DIR", value_name = "DIR", default_value = "/var/lib/heptad")]
    pub data_dir: PathBuf,
    /// Stop waiting after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
}
