//! What each command does. Each module asks the API and prints; none decides anything that the server decides.

mod apply;
mod context;
mod delete;
mod explain;
mod get;
mod logs;
mod mesh;
mod misc;
mod node;
mod optimize;
mod rollout;
mod settings;
mod state;
mod storage;
mod trust;
mod why;

use crate::{
    cli::{Command, Connect, MeshCommand, NodeCommand, RolloutCommand, StorageCommand},
    platform::paths,
};
use anyhow::Context;
use heptad_api::Resource;
use heptad_client::{Client, State, View, watch_state};
use heptad_model::{Config, Namespace, Secret, ServiceKey};
use std::{process::ExitCode, sync::Arc};

pub use apply::{show_until_ready, wait_ready};

/// Runs a command that asks a platform.
pub async fn run(connect: &Connect, command: Command) -> anyhow::Result<ExitCode> {
    if let Command::Completion { shell } = command {
        return misc::completion(shell);
    }
    let command = match command {
        Command::Login(args) => return context::login(args).await,
        Command::Context(args) => return context::run(args),
        Command::Backup(args) => return state::backup(args).await,
        Command::Restore(args) => return state::restore(args).await,
        Command::State(command) => return state::run(command).await,
        command => command,
    };
    let client = client(connect)?;
    match command {
        Command::Apply(args) => apply::apply(&client, args).await,
        Command::Plan(args) => apply::plan(&client, args).await,
        Command::Get(args) => get::get(&client, args).await,
        Command::Describe(args) => get::describe(&client, args).await,
        Command::Delete(args) => delete::delete(&client, args).await,
        Command::Scale(args) => misc::scale(&client, args).await,
        Command::Logs(args) => logs::logs(&client, args).await,
        Command::Exec(args) => logs::exec(&client, args).await,
        Command::Why(args) => why::why(&client, args).await,
        Command::Events(args) => misc::events(&client, args).await,
        Command::Node(NodeCommand::List(output)) => get::nodes(&client, output.output).await,
        Command::Node(NodeCommand::JoinToken(args)) => trust::join_token(&client, args).await,
        Command::Token(command) => trust::token(&client, command).await,
        Command::Ca(command) => trust::ca(&client, command).await,
        Command::Node(NodeCommand::Cordon { name }) => node::cordon(&client, &name).await,
        Command::Node(NodeCommand::Uncordon { name }) => node::uncordon(&client, &name).await,
        Command::Node(NodeCommand::Admit { name }) => node::admit(&client, &name).await,
        Command::Node(NodeCommand::Drain(args)) => node::drain(&client, args).await,
        Command::Node(NodeCommand::Label(args)) => node::label(&client, args).await,
        Command::Node(NodeCommand::Fence { name }) => node::fence(&client, &name).await,
        Command::Node(NodeCommand::Remove(args)) => node::remove(&client, args).await,
        Command::Rollout(command) => rollout::run(&client, command).await,
        Command::Restart(args) => rollout::run(&client, RolloutCommand::Restart(args)).await,
        Command::Mesh(MeshCommand::Call(args)) => mesh::call(&client, args).await,
        Command::Mesh(MeshCommand::Check(args)) => mesh::check(&client, args).await,
        Command::Config(command) => settings::run::<Config>(&client, command).await,
        Command::Secret(command) => settings::run::<Secret>(&client, command).await,
        Command::Storage(StorageCommand::Put { target, file }) => storage::put(&client, &target, &file).await,
        Command::Storage(StorageCommand::Get { source, file }) => storage::get(&client, &source, file).await,
        Command::Storage(StorageCommand::Ls { target, output }) => storage::ls(&client, &target, output.output).await,
        Command::Storage(StorageCommand::Rm { target }) => storage::rm(&client, &target).await,
        Command::Storage(StorageCommand::Status(output)) => storage::status(&client, output.output).await,
        Command::Optimize(args) => optimize::optimize(&client, args).await,
        Command::Verify(output) => why::verify(&client, output.output).await,
        Command::Version => misc::version(&client).await,
        Command::Demo(_)
        | Command::Dev(_)
        | Command::Server(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::State(_)
        | Command::Agent(_)
        | Command::Upgrade(_)
        | Command::Login(_)
        | Command::Context(_)
        | Command::Completion { .. }
        | Command::Shim { .. }
        | Command::ExampleService(_) => anyhow::bail!("this command does not ask a platform"),
    }
}

/// The client that the flags describe; without any, of the cluster that is in use, or of the platform of this machine.
pub fn client(connect: &Connect) -> anyhow::Result<Client> {
    if let (Some(server), Some(file)) = (connect.server, &connect.token_file) {
        let token =
            std::fs::read_to_string(file).with_context(|| format!("cannot read the token in {}", file.display()))?;
        return Ok(Client::tcp(server, token.trim()));
    }
    if let Some(socket) = &connect.socket {
        return Ok(Client::unix(socket));
    }
    if let Some(client) = context::client(connect.context.as_deref())? {
        return Ok(client);
    }
    let dir = paths::runtime_dir();
    if paths::is_foreign(&dir) {
        anyhow::bail!("{} belongs to another user; name the platform's socket with --socket", dir.display());
    }
    Ok(Client::unix(paths::socket_default()))
}

/// The live state of a kind with its first view. A platform that does not answer is an error, not waited for.
async fn followed<T: Resource>(client: &Client) -> anyhow::Result<(State<T>, Arc<View<T>>)> {
    client.version().await?;
    let mut state = watch_state(client);
    let view = state.synced().await;
    Ok((state, view))
}

/// The namespace of that name.
fn namespace(name: &str) -> Namespace {
    Namespace(name.to_owned())
}

/// `NAME` in the namespace, or `NAMESPACE/NAME`.
fn service_key(text: &str, in_namespace: &str) -> ServiceKey {
    ServiceKey::parse_in(text, &namespace(in_namespace))
}
