//! heptad-shard
