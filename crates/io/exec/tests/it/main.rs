//! Containers and processes as their drivers really run them. These tests need root.

mod external;
mod limits;
mod logs;
mod process;
mod restart;
mod run;
mod sandbox;
mod security;
mod support;
