//! The optimiser against tiny problems whose optimum is known by trying everything, and against made problems of real size.

mod made;
mod promises;
// The checker is tried on the same problems.
#[path = "../../../certify/tests/it/tiny.rs"]
mod tiny;
