//! heptad-proxy
