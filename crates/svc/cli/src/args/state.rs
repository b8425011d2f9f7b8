//! The flags of commands that work on the state itself: which state, and where etcd is. Does nothing.

use super::Etcd;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where the state is: in a server's data directory, or on etcd.
#[derive(Clone, Debug, Args)]
pub struct StateFlags {
    /// The server's data directory; only `backup` works while the server runs
    #[arg(long, env = "HEPTAD_DATA_DIR", default_value = "/var/lib/heptad", value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub etcd: Etcd,
}

#[derive(Clone, Debug, Args)]
pub struct Backup {
    /// The file to write; replaces an existing one
    pub file: PathBuf,
    #[command(flatten)]
    pub state: StateFlags,
}

#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,
    /// Delete the existing state first
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub state: StateFlags,
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Move the state of the server in the data directory to etcd, or back, for good; stop all servers first
    Migrate(Migrate),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrateTo {
    /// From the data directory to etcd
    Etcd,
    /// From the server's etcd to the data directory
    Embedded,
}

#[derive(Clone, Debug, Args)]
pub struct Migrate {
    /// Where to
    #[arg(long)]
    pub to: MigrateTo,
    /// Delete the existing state first
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub state: StateFlags,
}
