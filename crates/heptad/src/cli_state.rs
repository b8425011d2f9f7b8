//! The flags of commands that work on the state itself: which state, and where etcd is. Does nothing.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where the state is: in a server's data directory, or on etcd.
#[derive(Clone, Debug, Args)]
pub struct StateFlags {
    /// The server's data directory, with the state in it; stop the server first
    #[arg(long, env = "HEPTAD_DATA_DIR", default_value = "/var/lib/heptad", value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub etcd: EtcdFlags,
}

/// An etcd cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct EtcdFlags {
    /// Members of the etcd cluster that has the state, with `http://` or `https://` and port
    #[arg(long = "etcd", env = "HEPTAD_ETCD", value_name = "URL,URL", value_delimiter = ',')]
    pub endpoints: Vec<String>,
    /// The certificates that etcd's members are checked with
    #[arg(long = "etcd-ca", env = "HEPTAD_ETCD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to etcd's members
    #[arg(long = "etcd-cert", env = "HEPTAD_ETCD_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long = "etcd-key", env = "HEPTAD_ETCD_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// The user of etcd
    #[arg(long = "etcd-user", env = "HEPTAD_ETCD_USER", value_name = "NAME", requires = "password_file")]
    pub user: Option<String>,
    /// The file with the user's password
    #[arg(long = "etcd-password-file", env = "HEPTAD_ETCD_PASSWORD_FILE", value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub struct Backup {
    /// The file to write; one that is there is replaced
    pub file: PathBuf,
    #[command(flatten)]
    pub state: StateFlags,
}

#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,
    /// Delete what is there first
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub state: StateFlags,
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Copy everything from the data directory to etcd, or back; stop all servers first
    Migrate(Migrate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateTo {
    /// From the data directory to etcd
    Etcd,
    /// From etcd to the data directory
    Embedded,
}

#[derive(Clone, Debug, Args)]
pub struct Migrate {
    /// Where to
    #[arg(long)]
    pub to: MigrateTo,
    /// Delete what is there first
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub state: StateFlags,
}
