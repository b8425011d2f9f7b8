//! The distributed storage on three real directories: a map that survives lost and damaged copies, full disks,
//! concurrent writers and kill -9; its HTTP front with curl.

mod crash;
mod faults;
mod history;
mod http;
mod model;
mod remote;
mod returns;
mod support;
mod uploads;
