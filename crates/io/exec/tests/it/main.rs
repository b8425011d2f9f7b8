//! Tests of this crate against the real kernel, real containers and real registries. They need root.

mod driver;
mod image;
