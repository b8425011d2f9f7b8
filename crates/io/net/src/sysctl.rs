//! Kernel switches below /proc/sys/net, seen from the calling thread's network namespace.

use std::{fs, path::PathBuf};

use crate::{Error, Result};

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(name)
}

pub(crate) fn read(name: &str) -> Result<String> {
    let path = path(name);
    fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(Error::io("read", path))
}

pub(crate) fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).map_err(Error::io("write", path))
}

/// For switches that some kernels lack, such as those of IPv6.
pub(crate) fn write_if_present(name: &str, value: &str) -> Result<()> {
    if path(name).exists() { write(name, value) } else { Ok(()) }
}
