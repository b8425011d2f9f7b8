//! heptad-api
