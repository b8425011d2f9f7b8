//! heptad-route
