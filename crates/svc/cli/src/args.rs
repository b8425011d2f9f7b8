//! The command line as a value: commands, flags, their help. Does nothing.

mod cluster;
mod state;
mod trust;
mod unused;

pub use cluster::{
    Agent, AgentCommand, AgentJoin, AgentRun, ContextCommand, Etcd, Joining, Login, Machine, Server, ServerCommand,
    ServerInit, ServerJoin, Upgrade,
};
pub use state::{Backup, Migrate, MigrateTo, Restore, StateCommand, StateFlags};
pub use trust::{CaCommand, JoinTokenArgs, TokenCommand};

use clap::{Args, Parser, Subcommand, ValueEnum};
use heptad_api::Kind;
use std::{net::SocketAddr, path::PathBuf};

const AFTER_HELP: &str = "\
Examples:
  heptad demo                          see everything at work in a minute
  heptad dev                           a platform for this terminal; Ctrl-C removes it
  heptad apply -f shop.yaml --wait     make the services of a file run
  heptad why web                       why is it not ready?
  heptad logs -f web                   what do its replicas say?

Exit codes: 0 done; 1 failed; 2 wrong usage; `plan`: 0 no change, 3 changes, 4 something cannot be placed.
Each flag with an environment variable can be set there, such as HEPTAD_SOCKET.";

/// Places, runs, connects and stores microservices.
#[derive(Debug, Parser)]
#[command(name = "heptad", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub connect: Connect,
    /// Take over the listening sockets that wait on the standard input (the program says so to itself)
    #[arg(long, global = true, hide = true)]
    pub handover: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the platform is reached.
#[derive(Clone, Debug, Args)]
pub struct Connect {
    /// The cluster to ask, as `heptad context list` names it; `local`: this machine's platform
    #[arg(long, global = true, env = "HEPTAD_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// The API's Unix socket; found by itself if a platform of this user runs
    #[arg(long, global = true, env = "HEPTAD_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The API's address on loopback, instead of the socket; needs a token
    #[arg(long, global = true, env = "HEPTAD_SERVER", value_name = "IP:PORT", requires = "token_file")]
    pub server: Option<SocketAddr>,
    /// The file with the token for --server, `login` or `join` (`-`: the standard input)
    #[arg(long, global = true, env = "HEPTAD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// The command, by who carries it out.
#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Role(RoleCommand),
    #[command(flatten)]
    Person(PersonCommand),
    #[command(flatten)]
    Ask(AskCommand),
}

/// What the program itself becomes, or does with the data of this machine. None of these asks a running platform.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Run the example shop and check everything: services, the mesh, storage that loses a disk
    Demo(Demo),
    /// Run a platform for this terminal; Ctrl-C removes it and all its containers (with --data-dir, its data stays)
    Dev(Run),
    /// Run the platform of this machine, or a server of a cluster; containers and data outlive the process
    Server(Box<Server>),
    /// Run this machine as a node of a cluster
    Agent(Box<Agent>),
    /// Let the server or agent of this machine start its program file anew; containers and connections are kept
    Upgrade(Upgrade),
    /// Write the whole state at one revision to a file, without containers and stored objects
    #[command(display_order = 100)]
    Backup(Backup),
    /// Restore the state from a file
    #[command(display_order = 101)]
    Restore(Restore),
    /// Move the state from the data directory to etcd and back
    #[command(subcommand, display_order = 102)]
    State(StateCommand),
    /// A container's shim (started by the platform itself)
    #[command(hide = true, disable_help_flag = true)]
    Shim {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// A small HTTP service of the example shop
    #[command(hide = true)]
    ExampleService(ExampleService),
}

/// Commands about the person and the clusters that the person knows. None of these asks the platform that the flags
/// name.
#[derive(Debug, Subcommand)]
pub enum PersonCommand {
    /// Log in to a cluster
    Login(Login),
    /// The clusters that you are logged in to
    #[command(subcommand)]
    Context(ContextCommand),
    /// Print the completion script of a shell
    #[command(display_order = 103)]
    Completion { shell: clap_complete::Shell },
}

/// Commands that ask a running platform.
#[derive(Debug, Subcommand)]
pub enum AskCommand {
    /// Create or change the objects that files describe
    Apply(Apply),
    /// Show what an apply would change, and where each replica would go
    Plan(Plan),
    /// List objects, or show one
    Get(Get),
    /// Show everything that is known about one object
    Describe(Named),
    /// Delete objects
    Delete(Delete),
    /// Set the number of replicas of a service
    Scale(Scale),
    /// Print the logs of a service's replicas, or of one container
    Logs(Logs),
    /// Run a program inside a container
    Exec(Exec),
    /// Explain why a service is not in its wanted state, or why a container is on its node and no other
    Why(Subject),
    /// A service's rollout: progress, revisions, undo, pause, resume, restart
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Replace all containers of a service by new ones, as `rollout restart` does
    Restart(Restart),
    /// List what happened, newest last
    Events(Events),
    /// Nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Tokens for people
    #[command(subcommand)]
    Token(TokenCommand),
    /// The CA that signs the certificates of servers and nodes
    #[command(subcommand)]
    Ca(CaCommand),
    /// Calls through the mesh, and why they are denied
    #[command(subcommand)]
    Mesh(MeshCommand),
    /// Configs: named values for services
    #[command(subcommand)]
    Config(SettingsCommand),
    /// Secrets: named values that are sealed, and never shown again
    #[command(subcommand)]
    Secret(SettingsCommand),
    /// Objects in the distributed storage
    #[command(subcommand)]
    Storage(StorageCommand),
    /// Show moves that would free nodes, their gain, and how far the result is from the best; or begin them
    Optimize(Optimize),
    /// Evaluate the guarantees on the live state; exit code 1 if one does not hold
    Verify(OutputFlag),
    /// Print the versions of this program and of the platform
    #[command(display_order = 104)]
    Version,
}

#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Leave the platform running after the checks, until Ctrl-C
    #[arg(long)]
    pub stay: bool,
    #[command(flatten)]
    pub run: Run,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DriverChoice {
    /// Containers if this user may make them, else processes
    #[default]
    Auto,
    /// Isolated containers; needs root
    Oci,
    /// Plain processes with resource limits
    Process,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OptimizeChoice {
    /// Only when asked
    Off,
    /// Record an event when moves would free nodes
    #[default]
    Suggest,
    /// Move containers, their successors serving first
    Auto,
}

#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Where all data is kept [default: `dev`, `demo`: a directory that is removed at the end; `server`: /var/lib/heptad]
    #[arg(long, env = "HEPTAD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the API listens for programs with a token; port 0 chooses one
    #[arg(long, env = "HEPTAD_LISTEN", default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// The name of this node [default: the host's name]
    #[arg(long, env = "HEPTAD_NODE", value_name = "NAME")]
    pub node: Option<String>,
    #[command(flatten)]
    pub machine: Machine,
    /// What the optimiser of the placement does by itself
    #[arg(long, env = "HEPTAD_OPTIMIZE", value_enum, default_value_t)]
    pub optimize: OptimizeChoice,
    /// How often it does that
    #[arg(long, env = "HEPTAD_OPTIMIZE_INTERVAL", default_value_t = 300, value_name = "SECONDS")]
    pub optimize_interval: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Files {
    /// A manifest file (YAML, JSON or TOML), a directory of them, or - for standard input; may be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Warn about unknown fields instead of refusing them
    #[arg(long)]
    pub lenient: bool,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Wait until every replica is ready
    #[arg(long)]
    pub wait: bool,
    /// Stop waiting after this many seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", requires = "wait")]
    pub timeout: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub files: Files,
    /// Also search for the best places for the new containers, and say how far from the best they are at most
    #[arg(long)]
    pub optimal: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Optimize {
    /// The most moves [default: the server's own bound, 20]
    #[arg(long, value_name = "MOVES")]
    pub moves_max: Option<u64>,
    /// Begin the moves that are possible now: each successor serves before its container stops
    #[arg(long)]
    pub apply: bool,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// KIND/NAME, a line each
    Name,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct OutputFlag {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct InNamespace {
    /// The namespace
    #[arg(short, long, env = "HEPTAD_NAMESPACE", default_value = "default")]
    pub namespace: String,
}

#[derive(Clone, Debug, Args)]
pub struct Get {
    #[arg(value_parser = listed, help = format!("{}; or servers", kinds()))]
    pub kind: Listed,
    /// Only this one
    pub name: Option<String>,
    #[command(flatten)]
    pub namespace: InNamespace,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "name")]
    pub all_namespaces: bool,
    /// Keep printing changes until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct Named {
    #[arg(value_parser = kind, help = Kind::ALL.map(Kind::singular).join(", "))]
    pub kind: Kind,
    pub name: String,
    #[command(flatten)]
    pub namespace: InNamespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct Delete {
    /// service, policy, rule, node
    #[arg(value_parser = kind, required_unless_present = "files")]
    pub kind: Option<Kind>,
    #[arg(required_unless_present = "files")]
    pub names: Vec<String>,
    /// All objects of a manifest file; may be repeated
    #[arg(short, long = "file", value_name = "FILE", conflicts_with_all = ["kind", "names"])]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub namespace: InNamespace,
    /// Return at once instead of waiting until the containers are gone
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Scale {
    /// The service
    pub name: String,
    /// How many replicas
    pub replicas: u32,
    #[command(flatten)]
    pub namespace: InNamespace,
    /// Wait until every replica is ready
    #[arg(long)]
    pub wait: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Logs {
    /// A service or a container
    pub name: String,
    /// Keep printing new output
    #[arg(short, long)]
    pub follow: bool,
    /// Only this many of the last lines of each container
    #[arg(long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// With the time of each line
    #[arg(short, long)]
    pub timestamps: bool,
    /// Pass colours and other escape sequences to a terminal too; a pipe always gets them
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub namespace: InNamespace,
}

#[derive(Clone, Debug, Args)]
pub struct Exec {
    /// A service (its first running container) or a container
    pub name: String,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Kill the program after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
    #[command(flatten)]
    pub namespace: InNamespace,
}

#[derive(Clone, Debug, Args)]
pub struct Subject {
    /// The service or container
    pub name: String,
    #[command(flatten)]
    pub namespace: InNamespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct ServiceName {
    /// The service
    pub name: String,
    #[command(flatten)]
    pub namespace: InNamespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct Events {
    /// Keep printing new events
    #[arg(short, long)]
    pub follow: bool,
    /// Only this many of the last
    #[arg(long, value_name = "EVENTS")]
    pub tail: Option<usize>,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show the progress; exit code 1 if it failed
    Status(RolloutStatusOf),
    /// List the revisions that are kept
    History(ServiceName),
    /// Make an earlier revision the wanted one again
    Undo(Undo),
    /// Pause it
    Pause(ServiceName),
    /// Resume it: if paused, at a canary's step, or after a failure
    Resume(ServiceName),
    /// Replace all containers by new ones of the same specification; a job runs again
    Restart(Restart),
}

#[derive(Clone, Debug, Args)]
pub struct RolloutStatusOf {
    #[command(flatten)]
    pub service: ServiceName,
    /// Wait until it is complete
    #[arg(long)]
    pub wait: bool,
    /// Stop waiting after this many seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", requires = "wait")]
    pub timeout: u64,
}

#[derive(Clone, Debug, Args)]
pub struct Undo {
    #[command(flatten)]
    pub service: ServiceName,
    /// The number of the revision [default: the one before the present one]
    #[arg(long, value_name = "REVISION")]
    pub to: Option<u64>,
    /// Wait until it is complete
    #[arg(long)]
    pub wait: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    pub service: ServiceName,
    /// Wait until it is complete
    #[arg(long)]
    pub wait: bool,
}

#[derive(Clone, Debug, Args)]
pub struct DrainNode {
    /// The node
    pub name: String,
    /// Stop waiting after this many seconds; the node is still emptied until it is uncordoned
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Clone, Debug, Args)]
pub struct RemoveNode {
    /// The node
    pub name: String,
    /// Even if it has containers: they are stopped there and replaced elsewhere
    #[arg(long)]
    pub force: bool,
    /// The machine is off: do not wait for it, and let services with `never_twice` run elsewhere
    #[arg(long)]
    pub fenced: bool,
    /// Stop waiting after this many seconds; the removal continues until the node is uncordoned
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes with their allocated and free resources
    List(OutputFlag),
    /// Make a token with which a machine joins, and print the line to run there
    JoinToken(JoinTokenArgs),
    /// Place no new containers on a node; those that are there stay
    Cordon { name: String },
    /// Place containers on a node again; cancels a drain or a removal
    Uncordon { name: String },
    /// Move all containers of a node elsewhere, one after another
    Drain(DrainNode),
    /// Set labels of a node, and remove those written with a trailing dash
    Label(LabelNode),
    /// Declare that a node that does not answer is off, so that services with `never_twice` run elsewhere
    Fence { name: String },
    /// Accept what the machine has gained since it joined, such as memory or devices, as its agent reports it
    Admit { name: String },
    /// Stop what a node runs, then take it out of the cluster
    Remove(RemoveNode),
}

#[derive(Clone, Debug, Args)]
pub struct LabelNode {
    pub name: String,
    /// KEY=VALUE sets a label, KEY- removes it
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = cluster::label_change)]
    pub labels: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug, Subcommand)]
pub enum MeshCommand {
    /// Send a request through the mesh as if from service FROM (`-`: as operator)
    Call(MeshCall),
    /// Say whether service FROM may call service TO, and why
    Check(MeshCheck),
}

#[derive(Clone, Debug, Args)]
pub struct MeshCall {
    pub from: String,
    pub to: String,
    /// The path, with the query
    #[arg(default_value = "/")]
    pub path: String,
    #[arg(short = 'X', long, default_value = "GET")]
    pub method: String,
    /// A header, as `NAME: VALUE`; may be repeated
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    #[arg(short, long, default_value = "")]
    pub data: String,
    /// The container port [default: the service's first]
    #[arg(long)]
    pub port: Option<u16>,
    #[command(flatten)]
    pub namespace: InNamespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Args)]
pub struct MeshCheck {
    pub from: String,
    pub to: String,
    /// The path, for rules that look at it
    #[arg(default_value = "/")]
    pub path: String,
    #[arg(long)]
    pub port: Option<u16>,
    #[command(flatten)]
    pub namespace: InNamespace,
    #[command(flatten)]
    pub output: OutputFlag,
}

#[derive(Clone, Debug, Subcommand)]
pub enum StorageCommand {
    /// Store a file (-: standard input) as BUCKET/KEY; returns when a majority of copies is on disk
    Put { target: String, file: PathBuf },
    /// Read BUCKET/KEY into a file (default: standard output)
    Get { source: String, file: Option<PathBuf> },
    /// List BUCKET or BUCKET/PREFIX
    Ls {
        target: String,
        #[command(flatten)]
        output: OutputFlag,
    },
    /// Delete BUCKET/KEY
    Rm { target: String },
    /// Show storage nodes and the health of copies
    Status(OutputFlag),
}

#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Set values; keys that are not named stay. Services that use them are rolled.
    ///
    /// KEY=VALUE, or KEY=@FILE for a file's content, KEY=@- for standard input (so that it stands in no shell's history).
    Set {
        /// The object's name; it is created if it does not exist
        name: String,
        /// The values to set
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<String>,
        #[command(flatten)]
        namespace: InNamespace,
    },
    /// Remove values
    Unset {
        /// The object's name
        name: String,
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        namespace: InNamespace,
    },
}

#[derive(Clone, Debug, Args)]
pub struct ExampleService {
    /// web, catalog, cart, stock
    pub name: String,
    /// What it answers as its version
    #[arg(long, default_value = "1")]
    pub version: String,
}

/// What `get` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// The objects of a kind.
    Objects(Kind),
    /// The servers, which are not objects.
    Servers,
}

fn listed(text: &str) -> Result<Listed, String> {
    match text.to_ascii_lowercase().as_str() {
        "servers" | "server" => Ok(Listed::Servers),
        _ => kind(text).map(Listed::Objects),
    }
}

/// Reads the name of a kind as people write it.
fn kind(text: &str) -> Result<Kind, String> {
    let text = text.to_ascii_lowercase();
    let found = Kind::ALL.into_iter().find(|kind| [kind.plural(), kind.singular(), kind.short()].contains(&&*text));
    found.ok_or_else(|| format!("`{text}` is not a kind; possible: {}", kinds()))
}

fn kinds() -> String {
    Kind::ALL.map(Kind::plural).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_line_of_a_join_token_is_understood() {
        let line = "heptad agent join https://10.0.0.1:7443 --token a.b --ca-pin sha256:c --label zone=a --data-dir /d \
                    --device gpu=8,example.com/fpga=1";
        let cli = Cli::try_parse_from(line.split(' ')).expect("understood");
        let Command::Role(RoleCommand::Agent(agent)) = cli.command else { panic!("{:?}", cli.command) };
        let Some(AgentCommand::Join(join)) = agent.command else { panic!("{agent:?}") };
        assert_eq!((join.joining.url.as_str(), join.labels.len()), ("https://10.0.0.1:7443", 1));
        assert_eq!(join.run.machine.devices(), [("example.com/fpga".to_owned(), 1), ("gpu".to_owned(), 8)].into());
        for bad in ["gpu", "gpu=", "gpu=0", "gpu=17", "cpu=1", "=1"] {
            assert!(Cli::try_parse_from(["heptad", "agent", "--device", bad]).is_err(), "{bad}");
        }
        let line = "heptad server join https://10.0.0.1:7443 --token a.b --ca-pin c --data-dir /d --no-agent";
        assert!(Cli::try_parse_from(line.split(' ')).is_ok());
        for line in ["heptad server --data-dir /d --no-agent", "heptad login https://h --token a.b --ca-pin c"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn kinds_have_short_names() {
        assert_eq!(kind("svc"), Ok(Kind::Services));
        assert_eq!(kind("Policies"), Ok(Kind::Policies));
        assert!(kind("pods").is_err());
    }
}
