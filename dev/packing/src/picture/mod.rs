//! Pictures of packings: what each node gave, before and after, beside the bound. Draws values; knows no engine and no file.

mod columns;
mod gpus;
mod svg;

pub use columns::{Columns, columns};
pub use gpus::{Gpus, gpus};
