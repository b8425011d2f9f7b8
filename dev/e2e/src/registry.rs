//! A real image registry on a free port of loopback, over plain HTTP.

use crate::{free_port, run_tool, wait_until};
use std::{
    fs::{self, File},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Ended by its handle when dropped, also after a failed test.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    _dir: tempfile::TempDir,
    /// `HOST:PORT`.
    pub address: String,
}

impl Registry {
    /// Starts Debian's docker-registry.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = format!("127.0.0.1:{}", free_port());
        let root = dir.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{address}'}}\n",
            root.display()
        );
        fs::write(dir.path().join("config.yml"), config).expect("the configuration is written");
        let log = File::create(dir.path().join("log")).expect("the log is made");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is shared"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run docker-registry ({e}): `cargo xtask test` installs its package"));
        let registry = Self { child, _dir: dir, address };
        wait_until("the registry answers", Duration::from_secs(60), || TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// Pushes `LAYOUT:TAG` (of an OCI layout); returns the reference under which it is pulled.
    pub fn push(&self, layout_and_tag: &str, name: &str) -> String {
        let reference = format!("{}/{name}", self.address);
        let (from, to) = (format!("oci:{layout_and_tag}"), format!("docker://{reference}"));
        run_tool("skopeo", &["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", &from, &to]);
        reference
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
