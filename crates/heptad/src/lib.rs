//! heptad
