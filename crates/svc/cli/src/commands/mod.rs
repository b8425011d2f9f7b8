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
mod storage;
mod trust;
mod why;

use crate::args::{AskCommand, Connect, MeshCommand, NodeCommand, PersonCommand, RolloutCommand, StorageCommand};
use anyhow::Context;
use heptad_api::Resource;
use heptad_client::{Client, State, View, local, watch_state};
use heptad_model::{Config, Namespace, Secret, ServiceKey};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

pub use apply::show_until_ready;

/// Runs the commands about the person.
pub async fn person(command: PersonCommand) -> anyhow::Result<ExitCode> {
    match command {
        PersonCommand::Login(args) => context::login(args).await,
        PersonCommand::Context(command) => context::run(command),
        PersonCommand::Completion { shell } => misc::completion(shell),
    }
}

/// Asks the platform that the flags name, and prints what it says.
pub async fn ask(connect: &Connect, command: AskCommand) -> anyhow::Result<ExitCode> {
    let client = client(connect)?;
    match command {
        AskCommand::Apply(args) => apply::apply(&client, args).await,
        AskCommand::Plan(args) => apply::plan(&client, args).await,
        AskCommand::Get(args) => get::get(&client, args).await,
        AskCommand::Describe(args) => get::describe(&client, args).await,
        AskCommand::Delete(args) => delete::delete(&client, args).await,
        AskCommand::Scale(args) => misc::scale(&client, args).await,
        AskCommand::Logs(args) => logs::logs(&client, args).await,
        AskCommand::Exec(args) => logs::exec(&client, args).await,
        AskCommand::Why(args) => why::why(&client, args).await,
        AskCommand::Events(args) => misc::events(&client, args).await,
        AskCommand::Node(NodeCommand::List(output)) => get::nodes(&client, output.output).await,
        AskCommand::Node(NodeCommand::JoinToken(args)) => trust::join_token(&client, args).await,
        AskCommand::Token(command) => trust::token(&client, command).await,
        AskCommand::Ca(command) => trust::ca(&client, command).await,
        AskCommand::Node(NodeCommand::Cordon { name }) => node::cordon(&client, &name).await,
        AskCommand::Node(NodeCommand::Uncordon { name }) => node::uncordon(&client, &name).await,
        AskCommand::Node(NodeCommand::Admit { name }) => node::admit(&client, &name).await,
        AskCommand::Node(NodeCommand::Drain(args)) => node::drain(&client, args).await,
        AskCommand::Node(NodeCommand::Label(args)) => node::label(&client, args).await,
        AskCommand::Node(NodeCommand::Fence { name }) => node::fence(&client, &name).await,
        AskCommand::Node(NodeCommand::Remove(args)) => node::remove(&client, args).await,
        AskCommand::Rollout(command) => rollout::run(&client, command).await,
        AskCommand::Restart(args) => rollout::run(&client, RolloutCommand::Restart(args)).await,
        AskCommand::Mesh(MeshCommand::Call(args)) => mesh::call(&client, args).await,
        AskCommand::Mesh(MeshCommand::Check(args)) => mesh::check(&client, args).await,
        AskCommand::Config(command) => settings::run::<Config>(&client, command).await,
        AskCommand::Secret(command) => settings::run::<Secret>(&client, command).await,
        AskCommand::Storage(StorageCommand::Put { target, file }) => storage::put(&client, &target, &file).await,
        AskCommand::Storage(StorageCommand::Get { source, file }) => storage::get(&client, &source, file).await,
        AskCommand::Storage(StorageCommand::Ls { target, output }) => {
            storage::ls(&client, &target, output.output).await
        }
        AskCommand::Storage(StorageCommand::Rm { target }) => storage::rm(&client, &target).await,
        AskCommand::Storage(StorageCommand::Status(output)) => storage::status(&client, output.output).await,
        AskCommand::Optimize(args) => optimize::optimize(&client, args).await,
        AskCommand::Verify(output) => why::verify(&client, output.output).await,
        AskCommand::Version => misc::version(&client).await,
    }
}

/// The platform that commands ask.
enum Asked {
    /// A server behind TCP.
    Remote(Client),
    /// The platform behind a Unix socket.
    Socket(PathBuf),
}

/// The platform that the flags describe; without flags, the cluster in use, or else the platform of this machine.
fn asked(connect: &Connect) -> anyhow::Result<Asked> {
    if let (Some(server), Some(file)) = (connect.server, &connect.token_file) {
        let token =
            std::fs::read_to_string(file).with_context(|| format!("cannot read the token in {}", file.display()))?;
        return Ok(Asked::Remote(Client::tcp(server, token.trim())));
    }
    if let Some(socket) = &connect.socket {
        return Ok(Asked::Socket(socket.clone()));
    }
    if let Some(client) = context::client(connect.context.as_deref())? {
        return Ok(Asked::Remote(client));
    }
    let dir = local::runtime_dir();
    if local::is_foreign(&dir) {
        anyhow::bail!("{} belongs to another user; name the platform's socket with --socket", dir.display());
    }
    Ok(Asked::Socket(local::socket_default()))
}

/// A client of the platform that commands ask.
fn client(connect: &Connect) -> anyhow::Result<Client> {
    Ok(match asked(connect)? {
        Asked::Remote(client) => client,
        Asked::Socket(socket) => Client::unix(socket),
    })
}

/// The flags that a command needs to ask the platform behind `socket`: none if commands ask that platform anyway.
pub fn flags_for(connect: &Connect, socket: &Path) -> String {
    let file = |path: &Path| std::fs::canonicalize(path).ok();
    match asked(connect) {
        Ok(Asked::Socket(asked)) if file(&asked).is_some_and(|asked| file(socket) == Some(asked)) => String::new(),
        _ => format!(" --socket {}", socket.display()),
    }
}

/// The live state of a kind with its first view. If the platform does not answer, fails instead of waiting.
async fn followed<T: Resource>(client: &Client) -> anyhow::Result<(State<T>, Arc<View<T>>)> {
    client.version().await?;
    let mut state = watch_state(client);
    let view = state.synced().await;
    Ok((state, view))
}

/// The namespace of that name.
pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace(name.to_owned())
}

/// `NAME` in the namespace, or `NAMESPACE/NAME`.
fn service_key(text: &str, in_namespace: &str) -> ServiceKey {
    ServiceKey::parse_in(text, &namespace(in_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_are_told_go_to_the_platform_that_tells_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let (socket, other, link) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("link"));
        for file in [&socket, &other] {
            std::fs::write(file, "").expect("written");
        }
        std::os::unix::fs::symlink(&socket, &link).expect("linked");
        let connect =
            |socket: &Path| Connect { context: None, socket: Some(socket.to_owned()), server: None, token_file: None };
        assert_eq!(flags_for(&connect(&link), &socket), "");
        assert_eq!(flags_for(&connect(&link), &other), format!(" --socket {}", other.display()));
        assert_eq!(flags_for(&connect(&dir.path().join("gone")), &socket), format!(" --socket {}", socket.display()));
    }
}
