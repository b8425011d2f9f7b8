//! heptad-agent
