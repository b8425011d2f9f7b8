//! The program that the tests execute as shim; in production it is the platform's own binary with the argument `shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    heptad_exec::shim::main(std::env::args_os().skip(1))
}
