//! Bounds and solutions against the true optimum of tiny problems, which is found by trying everything.

mod bounds;
mod solutions;
mod tiny;
