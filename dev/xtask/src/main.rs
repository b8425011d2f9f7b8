//! The chores of the repository: `cargo xtask layers|tidy|openapi|spec|test`. Each checks or does one thing and gives
//! the remedy when it fails. Nothing of the platform depends on it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program talks to people")]

mod layers;
mod metadata;
mod openapi;
mod spec;
mod testing;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Chores of the repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Fail on every import between crates that the architecture forbids
    Layers,
    /// Fail on every broken house rule that a program can check
    Tidy {
        /// Write down functions that have become shorter
        #[arg(long)]
        record: bool,
    },
    /// Write docs/openapi.json from the API's types
    Openapi {
        /// Only compare; fail if the file is out of date
        #[arg(long)]
        check: bool,
    },
    /// Compile the proofs under spec/ and fail on every theorem that is missing or rests on an axiom
    Spec,
    /// Install what the tests need (as root), build, and run all tests
    Test {
        /// Only say what is missing and, as root, install it
        #[arg(long)]
        prepare: bool,
        /// Handed to every test program, such as a filter
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run one test program, as cargo asks for it
    #[command(name = testing::PROGRAM_CHORE, hide = true)]
    TestProgram {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::TestProgram { program, args } => match testing::run_program(&program, &args) {
            Ok(code) => return ExitCode::from(u8::try_from(code).unwrap_or(101)),
            Err(error) => Err(error),
        },
        Chore::Layers => layers::run(),
        Chore::Tidy { record } => tidy::run(record),
        Chore::Openapi { check } => openapi::run(check),
        Chore::Spec => spec::run(),
        Chore::Test { prepare, args } => testing::run(prepare, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
