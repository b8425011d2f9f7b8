//! The command line: its arguments as a value, what each command asks a platform and prints, and the clusters that a
//! person has logged in to. Commands that make the program something else, or that need no platform, are returned as
//! [`RoleCommand`] for whoever has the parts to run them. Knows no part of a platform, decides nothing that the server
//! decides.
#![forbid(unsafe_code)]

pub mod args;
mod commands;
pub mod contexts;
mod kinds;
pub mod output;
pub mod tokens;

pub use args::{Cli, Command, RoleCommand};
pub use commands::{ask, flags_for, person, show_until_ready};
