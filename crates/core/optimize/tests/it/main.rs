//! The optimiser against tiny problems whose optimum is known by trying everything, and against made problems of real size.

mod made;
mod promises;
mod tiny;
