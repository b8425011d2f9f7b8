//! What a member of a cluster keeps on its disk: its identity, key and certificate, the roots, and where the servers
//! are. Knows no connection.

use heptad_pki::{KeyPair, TlsIdentity, TrustBundle, read_private, write_private};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use thiserror::Error;

const MEMBER_FILE: &str = "member.json";
const KEY_FILE: &str = "key.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const BUNDLE_FILE: &str = "trust-bundle.pem";
/// The file that opens sealed rows of the state store; in the data directory of servers.
pub const KEYRING_FILE: &str = "keyring";

/// Why the files of a member cannot be used.
#[derive(Debug, Error)]
pub enum MembershipError {
    /// A file or directory cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Key, certificate or roots cannot be used.
    #[error("cannot use {what} in {}; join again in an empty directory, or restore it", dir.display())]
    Identity {
        /// Which of them.
        what: &'static str,
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: heptad_pki::Error,
    },
    /// The description cannot be read.
    #[error("cannot read {}; join again in an empty directory, or restore it", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What a member knows about itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The cluster.
    pub cluster: String,
    /// The trust domain of all its names.
    pub trust_domain: String,
    /// The range of service addresses.
    pub service_cidr: Ipv4Net,
    /// The member's name.
    pub name: String,
    /// Where others reach it: for a node its node port, for a server its API.
    pub advertise: SocketAddr,
    /// Labels with which a node registers.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Devices with which a node registers, unless its start names others.
    #[serde(default, skip_serializing_if = "heptad_model::DeviceCounts::is_empty")]
    pub devices: heptad_model::DeviceCounts,
    /// The servers, as URLs.
    pub servers: Vec<String>,
}

/// The directory of a member's files; only their owner can read them.
#[derive(Clone, Debug)]
pub struct MemberFiles {
    dir: PathBuf,
}

/// The contents of the files, ready for use.
#[derive(Debug)]
pub struct Loaded {
    /// Its identity.
    pub member: Member,
    /// Its key.
    pub key: KeyPair,
    /// Its certificate, and the roots.
    pub identity: TlsIdentity,
}

impl MemberFiles {
    /// The files of the node in a data directory.
    pub fn of_node(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("node") }
    }

    /// The files of the server in a data directory.
    pub fn of_server(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("server") }
    }

    /// Whether a join was completed here.
    pub fn exist(&self) -> bool {
        self.dir.join(MEMBER_FILE).is_file()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn identity_error(&self, what: &'static str) -> impl FnOnce(heptad_pki::Error) -> MembershipError {
        let dir = self.dir.clone();
        move |source| MembershipError::Identity { what, dir, source }
    }

    /// Creates the directory, closed to others.
    pub fn make(&self) -> Result<(), MembershipError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|source| MembershipError::File { path: self.dir.clone(), source })
    }

    /// The key, if one was made here.
    pub fn key(&self) -> Result<Option<KeyPair>, MembershipError> {
        let path = self.dir.join(KEY_FILE);
        match path.is_file() {
            true => KeyPair::load(&path).map(Some).map_err(self.identity_error("the key")),
            false => Ok(None),
        }
    }

    /// Keeps the key.
    pub fn save_key(&self, key: &KeyPair) -> Result<(), MembershipError> {
        key.save(&self.dir.join(KEY_FILE)).map_err(self.identity_error("the key"))
    }

    /// Saves everything; the description last, so that an interrupted join does not count.
    pub fn save(
        &self,
        member: &Member,
        key: &KeyPair,
        chain_pem: &str,
        bundle_pem: &str,
    ) -> Result<(), MembershipError> {
        self.make()?;
        self.save_key(key)?;
        self.save_certificate(chain_pem, bundle_pem)?;
        self.save_member(member)
    }

    /// Saves another certificate of the same key.
    pub fn save_certificate(&self, chain_pem: &str, bundle_pem: &str) -> Result<(), MembershipError> {
        let bundle = self.dir.join(BUNDLE_FILE);
        write_private(&bundle, bundle_pem.as_bytes()).map_err(self.identity_error("the roots"))?;
        let certificate = self.dir.join(CERTIFICATE_FILE);
        write_private(&certificate, chain_pem.as_bytes()).map_err(self.identity_error("the certificate"))
    }

    /// Saves other roots.
    pub fn save_bundle(&self, bundle_pem: &str) -> Result<(), MembershipError> {
        let bundle = self.dir.join(BUNDLE_FILE);
        write_private(&bundle, bundle_pem.as_bytes()).map_err(self.identity_error("the roots"))
    }

    /// Saves what the member knows about itself and its cluster.
    pub fn save_member(&self, member: &Member) -> Result<(), MembershipError> {
        let text = serde_json::to_vec_pretty(member).expect("names, addresses and lists serialize");
        write_private(&self.dir.join(MEMBER_FILE), &text).map_err(self.identity_error("the description"))
    }

    fn text(&self, file: &str, what: &'static str) -> Result<String, MembershipError> {
        let bytes = read_private(&self.dir.join(file)).map_err(self.identity_error(what))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The description of the member, without its key.
    pub fn member(&self) -> Result<Member, MembershipError> {
        let path = self.dir.join(MEMBER_FILE);
        let bytes = read_private(&path).map_err(self.identity_error("the description"))?;
        serde_json::from_slice(&bytes).map_err(|source| MembershipError::Description { path, source })
    }

    /// Everything, ready for use.
    pub fn load(&self) -> Result<Loaded, MembershipError> {
        let member = self.member()?;
        let key = KeyPair::load(&self.dir.join(KEY_FILE)).map_err(self.identity_error("the key"))?;
        let chain = self.text(CERTIFICATE_FILE, "the certificate")?;
        let roots = self.text(BUNDLE_FILE, "the roots")?;
        let bundle = TrustBundle::from_pem(&roots).map_err(self.identity_error("the roots"))?;
        let identity = TlsIdentity::new(&chain, &key, bundle).map_err(self.identity_error("the certificate"))?;
        Ok(Loaded { member, key, identity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_pki::{Authority, SpiffeId};
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    #[test]
    fn what_a_member_keeps_is_for_its_owner_alone_and_read_again() {
        let data = tempfile::tempdir().expect("a directory");
        let files = MemberFiles::of_node(data.path());
        assert!(!files.exist());
        let now = crate::unix_ms();
        let authority = Authority::generate("cluster.local", now, Duration::from_secs(3_600)).expect("a CA");
        let key = KeyPair::generate().expect("a key");
        let csr = key.csr_pem().expect("a request");
        let id = SpiffeId::Node("n1".into());
        let issued = authority.sign(&csr, &id, &[], Duration::from_secs(60), now).expect("signed");
        let member = Member {
            cluster: "c1".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            service_cidr: "10.96.0.0/16".parse().expect("a range"),
            name: "n1".to_owned(),
            advertise: "10.0.0.1:7444".parse().expect("an address"),
            labels: Default::default(),
            devices: Default::default(),
            servers: vec!["https://10.0.0.1:7443".to_owned()],
        };
        files.save(&member, &key, &issued.chain_pem, authority.certificate_pem()).expect("kept");
        let loaded = files.load().expect("read");
        assert_eq!((loaded.member, loaded.identity.own().id), (member, id));
        assert_eq!(loaded.key.sha256(), issued.key_sha256);
        for entry in fs::read_dir(files.dir()).expect("a directory") {
            let mode = entry.expect("an entry").metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        fs::write(files.dir().join(CERTIFICATE_FILE), "nothing").expect("written");
        assert!(matches!(files.load(), Err(MembershipError::Identity { what: "the certificate", .. })));
    }
}
