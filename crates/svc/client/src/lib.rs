//! heptad-client
