//! The simulation itself is tried.
