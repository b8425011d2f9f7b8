//! heptad-store
