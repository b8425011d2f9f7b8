//! heptad-sched
