//! Joining a cluster: with a key that is made here and never leaves, a token, and the pin of the CA; keeps what comes
//! back. A node that the servers no longer accept rejoins under its old identity. Decides nothing: the server does.

use crate::{
    API_PORT, KEYRING_FILE, Member, MemberFiles, PersonConnector, ServerConnector, ServerList, Wires,
    servers::authority, unix_ms,
};
use anyhow::{Context, bail};
use heptad_api::{
    ErrorCode,
    trust::{JoinRequest, JoinResponse, JoinRole},
};
use heptad_client::{Client, Options};
use heptad_pki::{CaPin, KeyPair, TlsIdentity, TrustBundle, write_private};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
};

/// What a machine needs to know to join.
#[derive(Clone, Debug)]
pub struct Joining {
    /// A server, as a URL.
    pub server: String,
    /// The join token.
    pub token: String,
    /// The pin of the CA.
    pub ca_pin: String,
    /// The name that it asks for.
    pub name: String,
    /// Where others will reach it; `None`: the address from which it reaches the server.
    pub advertise: Option<IpAddr>,
    /// The port at which others will reach it.
    pub port: u16,
    /// Labels of a node.
    pub labels: BTreeMap<String, String>,
    /// Devices of a node.
    pub devices: heptad_model::DeviceCounts,
}

/// `https://HOST:PORT`, from what people write.
pub fn server_url(text: &str) -> anyhow::Result<String> {
    if text.starts_with("http://") {
        bail!("{text}: the API of a cluster is spoken to with TLS alone; write https://");
    }
    let host = authority(text);
    if host.is_empty() || host.contains('/') {
        bail!("`{text}` is not the address of a server; write https://HOST:PORT");
    }
    let has_port = host.parse::<SocketAddr>().is_ok()
        || host.rsplit_once(':').is_some_and(|(name, port)| !name.contains(':') && port.parse::<u16>().is_ok());
    Ok(if has_port { format!("https://{host}") } else { format!("https://{host}:{}", API_PORT) })
}

/// `IP` or `IP:PORT`.
pub fn advertised(text: &str, port: u16) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port)));
    let address = address.map_err(|_| format!("`{text}` is not an address; write IP or IP:PORT"))?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(format!("`{text}` is not one address that others can reach; name one of this machine's"));
    }
    Ok(address)
}

/// The address of this machine from which it reaches the server. No packet is sent.
async fn own_address(server: &str) -> anyhow::Result<IpAddr> {
    let host = authority(server).to_owned();
    let mut found = tokio::net::lookup_host(&host).await.with_context(|| format!("cannot find {host}"))?;
    let target = found.next().with_context(|| format!("{host} has no address"))?;
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let probe = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(target).and_then(|()| socket.local_addr()));
    Ok(probe
        .with_context(|| format!("there is no route to {host}; name this machine's address with --advertise"))?
        .ip())
}

/// The key of an earlier join attempt here, or a new one: a token that was used up by a join whose answer was lost
/// still works with the same key.
fn key_of(files: &MemberFiles) -> anyhow::Result<KeyPair> {
    Ok(match files.key()? {
        Some(key) => key,
        None => {
            let key = KeyPair::generate()?;
            files.save_key(&key)?;
            key
        }
    })
}

/// The node that this directory holds, if a join may renew it because the servers no longer accept its identity: its
/// certificate has ended, or it was removed. The join keeps its name, its key and all its data.
async fn renewable(files: &MemberFiles, server: &str, joining: &Joining) -> anyhow::Result<Member> {
    let member = files.member()?;
    let kept = files.load().ok();
    let dir = files.dir().display();
    if let Some(loaded) = kept {
        let ended = loaded.identity.own().not_after_ms <= unix_ms();
        let servers = ServerList::new(vec![server.to_owned()]);
        let connector = ServerConnector { servers, wires: Wires::new(loaded.identity) };
        let asked = Client::with_connector(Arc::new(connector), Options::default()).whoami().await;
        let codes = [Some(ErrorCode::Unauthorized), Some(ErrorCode::NodeRemoved)];
        let refused = asked.as_ref().is_err_and(|error| codes.contains(&error.code()));
        if !ended && !refused {
            let why = match asked {
                Ok(_) => "it is a member still".to_owned(),
                Err(error) => format!("cannot check whether it is still a member: {error}"),
            };
            bail!(
                "{dir} is a node of cluster {} already ({why}); start it without `join`, or use an empty --data-dir",
                member.cluster
            );
        }
    }
    if member.name != joining.name {
        bail!(
            "{dir} holds node {}, and its data with it; join as {0} (--name {0}), or use an empty --data-dir",
            member.name
        );
    }
    tracing::info!(name = member.name, cluster = member.cluster, "the node that was here joins again");
    Ok(member)
}

/// Joins, and keeps in the data directory what comes back.
pub async fn join(data_dir: &Path, role: JoinRole, joining: &Joining) -> anyhow::Result<(Member, JoinResponse)> {
    let files = match role {
        JoinRole::Node => MemberFiles::of_node(data_dir),
        JoinRole::Server => MemberFiles::of_server(data_dir),
    };
    let pin: CaPin = joining.ca_pin.parse().context("cannot use --ca-pin")?;
    let server = server_url(&joining.server)?;
    let before = match (files.exist(), role) {
        (false, _) => None,
        (true, JoinRole::Node) => Some(renewable(&files, &server, joining).await?),
        (true, JoinRole::Server) => bail!(
            "{} is a {role} of cluster {} already; start it without `join`, or use an empty --data-dir",
            data_dir.display(),
            files.member()?.cluster
        ),
    };
    let ip = match joining.advertise {
        Some(ip) => ip,
        None => own_address(&server).await?,
    };
    let connector = PersonConnector::pinned(&server, None, &pin);
    let client = Client::with_connector(Arc::new(connector), Options::default());
    let member = join_over(&client, &files, role, joining, SocketAddr::new(ip, joining.port), before).await;
    let (member, answer) = member.with_context(|| format!("{role} {} could not join at {server}", joining.name))?;
    let bundle = TrustBundle::from_pem(&answer.trust_bundle_pem)?;
    if !bundle.pins().contains(&pin) {
        // The connection proved that the server belongs to this CA, so this is no attack but a CA that was just
        // replaced.
        tracing::warn!("the CA of the pin is no longer among the roots");
    }
    if let Some(keyring) = &answer.keyring {
        write_private(&data_dir.join(KEYRING_FILE), keyring.as_bytes())?;
    }
    Ok((member, answer))
}

/// The value given for this join, or else that of the previous join.
fn given_or<K: Ord + Clone, V: Clone>(given: &BTreeMap<K, V>, before: Option<&BTreeMap<K, V>>) -> BTreeMap<K, V> {
    before.filter(|_| given.is_empty()).unwrap_or(given).clone()
}

/// Joins through a client that reaches the server by any way.
pub(crate) async fn join_over(
    client: &Client,
    files: &MemberFiles,
    role: JoinRole,
    joining: &Joining,
    address: SocketAddr,
    before: Option<Member>,
) -> anyhow::Result<(Member, JoinResponse)> {
    files.make()?;
    let key = key_of(files)?;
    let request = JoinRequest {
        token: joining.token.clone(),
        csr_pem: key.csr_pem()?,
        name: joining.name.clone(),
        role,
        address: Some(address),
    };
    let answer = client.join(&request).await?;
    if let Some(before) = before.as_ref().filter(|before| before.cluster != answer.cluster.id) {
        bail!(
            "this directory holds data of cluster {}, not of {}; use an empty --data-dir",
            before.cluster,
            answer.cluster.id
        );
    }
    // Parts that do not fit together are refused now, not at the next start.
    TlsIdentity::new(&answer.certificate_pem, &key, TrustBundle::from_pem(&answer.trust_bundle_pem)?)?;
    let servers = answer.cluster.servers.iter().map(|server| server.url.clone()).collect::<Vec<_>>();
    let member = Member {
        cluster: answer.cluster.id.clone(),
        trust_domain: answer.cluster.trust_domain.clone(),
        service_cidr: answer.cluster.service_cidr,
        name: joining.name.clone(),
        advertise: address,
        labels: given_or(&joining.labels, before.as_ref().map(|before| &before.labels)),
        devices: given_or(&joining.devices, before.as_ref().map(|before| &before.devices)),
        servers: if servers.is_empty() { vec![server_url(&joining.server)?] } else { servers },
    };
    files.save(&member, &key, &answer.certificate_pem, &answer.trust_bundle_pem)?;
    Ok((member, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_in_several_ways() {
        for text in ["https://10.0.0.1:7443", "10.0.0.1", "10.0.0.1:7443", "https://10.0.0.1/"] {
            assert_eq!(server_url(text).expect(text), "https://10.0.0.1:7443");
        }
        assert_eq!(server_url("[::1]:80").expect("v6"), "https://[::1]:80");
        assert_eq!(server_url("[::1]").expect("v6"), "https://[::1]:7443");
        assert_eq!(server_url("control.example:1").expect("a name"), "https://control.example:1");
        for bad in ["http://10.0.0.1", "", "https://a/b"] {
            assert!(server_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_one_address_can_be_advertised() {
        assert_eq!(advertised("10.0.0.1", 7444), Ok(([10, 0, 0, 1], 7444).into()));
        assert_eq!(advertised("10.0.0.1:1", 7444), Ok(([10, 0, 0, 1], 1).into()));
        for bad in ["0.0.0.0", "::", "host", "10.0.0.1:0", ""] {
            assert!(advertised(bad, 7444).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_own_address_is_that_of_the_way_to_the_server() {
        assert_eq!(own_address("https://127.0.0.1:7443").await.expect("a way"), IpAddr::from([127, 0, 0, 1]));
    }
}
