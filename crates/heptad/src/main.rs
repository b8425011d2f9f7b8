//! The program: a shim if it was started as one, else the command line.
#![forbid(unsafe_code)]

use clap::Parser;
use heptad::{
    cli::{Cli, Command},
    commands, demo, example, output, serve, tokens,
};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything else: a shim must have one thread, and no signal handlers or descriptors of ours.
    if let Some(code) = heptad::run_as_shim() {
        return code;
    }
    let mut cli = Cli::parse();
    log(&cli.command);
    // While there is one thread, and before anything is opened: the program may begin anew.
    match tokens::settle(&mut cli).and_then(|()| run(cli)) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(format!("{} {error:#}", output::paint_stderr("error:", 31)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let small = matches!(cli.command, Command::ExampleService(_));
    let mut builder =
        if small { tokio::runtime::Builder::new_current_thread() } else { tokio::runtime::Builder::new_multi_thread() };
    let runtime = builder.enable_all().build()?;
    let code = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args).await,
            Command::Dev(args) => serve::dev(args).await,
            Command::Server(args) => serve::server(*args).await,
            Command::Agent(args) => serve::agent(*args).await,
            Command::Upgrade(args) => serve::upgrade(args).await,
            Command::ExampleService(args) => example::serve(args).await,
            command => commands::run(&cli.connect, command).await,
        }
    });
    // A read from standard input cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    code
}

/// Logs go to stderr: `HEPTAD_LOG` chooses what (as RUST_LOG), `HEPTAD_LOG_FORMAT=json` how.
fn log(command: &Command) {
    let default = if matches!(command, Command::Server(_) | Command::Agent(_)) { "info" } else { "error" };
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
