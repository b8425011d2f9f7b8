//! The program: a shim if it was started as one, else the command line, whose roles run here.
#![forbid(unsafe_code)]

mod demo;
mod example;
mod memory;
mod serve;
mod state;

use heptad_cli::{Cli, Command, RoleCommand, args::Connect, output, tokens};
use std::{io::IsTerminal, process::ExitCode, time::Duration};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything else: a shim must have one thread, and no signal handlers or descriptors of ours.
    if let Some(code) = heptad::run_as_shim() {
        return code;
    }
    let mut cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    log(&cli.command);
    // While there is one thread, and before anything is opened: the program may begin anew.
    match tokens::read_for(&mut cli).and_then(|()| run(cli)) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(format!("{} {error:#}", output::paint_stderr("error:", 31)));
            ExitCode::FAILURE
        }
    }
}

/// Threads for blocking work: the logs and programs of people (256), each kind of work on containers and reads of the
/// state, which are bounded where they are requested, and the rest for files of images and stored data.
const BLOCKING_THREADS_MAX: usize = 384;
/// How long an idle thread stays. Short work goes to the thread that has been idle longest, so with a longer time a
/// little work would keep alive every thread that was ever started.
const BLOCKING_THREAD_IDLE_MS: u64 = 1_000;

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let small = matches!(cli.command, Command::Role(RoleCommand::ExampleService(_)));
    let mut builder =
        if small { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    builder.max_blocking_threads(BLOCKING_THREADS_MAX);
    builder.thread_keep_alive(Duration::from_millis(BLOCKING_THREAD_IDLE_MS));
    let runtime = builder.enable_all().build()?;
    let code = runtime.block_on(async {
        match cli.command {
            Command::Role(command) => role(command, &cli.connect).await,
            Command::Person(command) => heptad_cli::person(command).await,
            Command::Ask(command) => heptad_cli::ask(&cli.connect, command).await,
        }
    });
    // A read from standard input cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    code
}

async fn role(command: RoleCommand, connect: &Connect) -> anyhow::Result<ExitCode> {
    use RoleCommand::{Agent, Backup, Demo, Dev, ExampleService, Restore, Server, Shim, State, Upgrade};
    if matches!(command, Demo(_) | Dev(_) | Server(_) | Agent(_)) {
        tokio::spawn(memory::give_back());
    }
    match command {
        Demo(args) => demo::run(args, connect).await,
        Dev(args) => serve::dev(args, connect).await,
        Server(args) => serve::server(*args).await,
        Agent(args) => serve::agent(*args).await,
        Upgrade(args) => serve::upgrade(args).await,
        Backup(args) => state::backup(args).await,
        Restore(args) => state::restore(args).await,
        State(command) => state::run(command).await,
        ExampleService(args) => example::serve(args).await,
        Shim { .. } => anyhow::bail!("a shim is started by the platform, as the first word after the program"),
    }
}

/// Logs go to stderr. `HEPTAD_LOG` selects them (like RUST_LOG); `HEPTAD_LOG_FORMAT=json` formats them.
fn log(command: &Command) {
    let default =
        if matches!(command, Command::Role(RoleCommand::Server(_) | RoleCommand::Agent(_))) { "info" } else { "error" };
    let filter = std::env::var("HEPTAD_LOG").unwrap_or_else(|_| default.to_owned());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if std::env::var("HEPTAD_LOG_FORMAT").is_ok_and(|format| format == "json") {
        subscriber.json().init();
    } else {
        subscriber.init();
    }
}
