//! heptad-e2e
