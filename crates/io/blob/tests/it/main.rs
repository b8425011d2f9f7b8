//! The blob engine on real directories: model, corruption, lost directories, full disks, kill -9.

mod corruption;
mod crash;
mod model;
mod space;
mod support;
