//! heptad-control
