//! Join tokens and joining: one transaction records the token's use and the node's key, then a certificate is signed. A
//! machine that asks again with the same key after a lost answer gets another answer.

use super::{
    Trust, failed, rows,
    rows::{JoinTokenRow, Use},
};
use crate::{
    clock::now_ms,
    error::{Error, Result, StoreContext},
    keys,
    objects::{Pending, row_object},
    random,
};
use heptad_api::{
    ErrorCode, Object, ProblemDetails,
    trust::{
        CertificateResponse, JOIN_TOKEN_TTL_MS_MAX, JOIN_TOKEN_USES_MAX, JoinRequest, JoinRole, JoinTokenCreated,
        JoinTokenInfo, JoinTokenRequest,
    },
};
use heptad_model::{Node, NodeName, NodeStatus, Problem, ResourceVector, ids::is_label};
use heptad_pki::{IssuedCertificate, JoinToken, SpiffeId};
use heptad_state::{Revision, StoreExt};
use std::net::SocketAddr;

/// How many join tokens are kept.
const JOIN_TOKENS_MAX: usize = 1_000;
/// How many commits of one join are tried against concurrent ones.
const JOIN_TRIES_MAX: usize = 32;

impl JoinTokenRow {
    fn info(self, id: &str) -> JoinTokenInfo {
        JoinTokenInfo {
            id: id.to_owned(),
            role: self.role,
            name: self.name,
            created_by: self.created_by,
            expires_at_ms: self.expires_at_ms,
            uses_left: self.uses_max.saturating_sub(u32::try_from(self.used.len()).unwrap_or(u32::MAX)),
            used_by: self.used.into_iter().map(|used| used.name).collect(),
        }
    }

    fn was_used_by(&self, name: &str, key_sha256: &str) -> bool {
        self.used.iter().any(|used| used.name == name && used.key_sha256 == key_sha256)
    }
}

fn refused(detail: impl Into<String>) -> Error {
    Error::refused(ErrorCode::Unauthorized, detail)
}

fn checked(request: &JoinTokenRequest) -> Result<()> {
    let mut problems = Vec::new();
    let mut wrong = |path: &str, message: String| problems.push(Problem { path: path.into(), message });
    if !(1..=JOIN_TOKEN_TTL_MS_MAX).contains(&request.ttl_ms) {
        wrong("ttl_ms", format!("it is not from 1 to {JOIN_TOKEN_TTL_MS_MAX}"));
    }
    if !(1..=JOIN_TOKEN_USES_MAX).contains(&request.uses) {
        wrong("uses", format!("it is not from 1 to {JOIN_TOKEN_USES_MAX}"));
    }
    if request.name.as_ref().is_some_and(|name| !is_label(name)) {
        wrong("name", "use lower-case letters, digits and `-`".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(ProblemDetails::invalid("no join token was made", problems).into()) }
}

impl Trust {
    pub(crate) async fn create_join_token(&self, request: JoinTokenRequest, by: &str) -> Result<JoinTokenCreated> {
        checked(&request)?;
        let now = now_ms();
        let mut pending = Pending::default();
        let kept = self.join_token_rows().await?;
        // Expired ones make room.
        for (id, _, revision) in kept.iter().filter(|(_, row, _)| row.expires_at_ms <= now) {
            pending.expect(&rows::join_token(id), *revision);
            pending.delete(&rows::join_token(id));
        }
        if kept.iter().filter(|(_, row, _)| row.expires_at_ms > now).count() >= JOIN_TOKENS_MAX {
            let detail = format!("there are {JOIN_TOKENS_MAX} join tokens; delete some first");
            return Err(Error::refused(ErrorCode::TooLarge, detail));
        }
        let token = JoinToken::generate().map_err(failed("make a join token"))?;
        let row = JoinTokenRow {
            hash: token.hash(),
            role: request.role,
            name: request.name,
            created_by: by.to_owned(),
            expires_at_ms: now.saturating_add(request.ttl_ms),
            uses_max: request.uses,
            used: Vec::new(),
        };
        pending.expect(&rows::join_token(token.id()), 0);
        pending.put(&rows::join_token(token.id()), &row);
        if pending.commit(&*self.store).await?.is_none() {
            return Err(Error::refused(ErrorCode::Busy, "the join tokens were changed meanwhile; try again"));
        }
        Ok(JoinTokenCreated {
            token: token.expose().to_string(),
            ca_pin: self.signing().await?.pin().to_string(),
            urls: self.servers().list().await?.into_iter().map(|(_, row)| row.url).collect(),
            info: row.info(token.id()),
        })
    }

    async fn join_token_rows(&self) -> Result<Vec<(String, JoinTokenRow, Revision)>> {
        let (rows, _) = self.store.list(rows::JOIN_TOKENS).await.during("list", "join tokens")?;
        let named = rows.iter().map(|kv| {
            let id = keys::shown(&kv.key)[rows::JOIN_TOKENS.len()..].to_owned();
            Ok((id, rows::decoded(kv)?, kv.mod_revision))
        });
        named.collect()
    }

    pub(crate) async fn join_tokens(&self) -> Result<Vec<JoinTokenInfo>> {
        Ok(self.join_token_rows().await?.into_iter().map(|(id, row, _)| row.info(&id)).collect())
    }

    pub(crate) async fn delete_join_token(&self, id: &str) -> Result<()> {
        let key = rows::join_token(id);
        match self.store.delete(key.clone()).await.during("delete", key)? {
            true => Ok(()),
            false => Err(Error::not_found(&format!("join-token/{id}"))),
        }
    }

    /// Admits a machine. The token's role is the machine's role, whatever the machine claims.
    pub(crate) async fn join(&self, request: &JoinRequest) -> Result<(JoinRole, CertificateResponse)> {
        let token = JoinToken::parse(&request.token)
            .map_err(|_| refused("this is not a join token; it has the form ID.SECRET"))?;
        if !is_label(&request.name) {
            let detail = format!("`{}` is not a name; use lower-case letters, digits and `-`", request.name);
            return Err(Error::refused(ErrorCode::BadRequest, detail));
        }
        for _ in 0..JOIN_TRIES_MAX {
            let (row, revision) = self.good_token(&token, request).await?;
            let issued = self.issue(row.role, request).await?;
            let mut pending = Pending::default();
            self.stage_join(&token, row.clone(), revision, request, &issued, &mut pending).await?;
            if pending.is_empty() || pending.commit(&*self.store).await?.is_some() {
                if row.role == JoinRole::Node {
                    self.roster.set(&request.name.as_str().into(), Some(issued.key_sha256.clone()));
                }
                return Ok((row.role, self.answer(issued).await?));
            }
        }
        Err(Error::refused(ErrorCode::Busy, "too many join at this moment; try again"))
    }

    /// The row of a token whose secret is right and that is still valid for this machine.
    async fn good_token(&self, token: &JoinToken, request: &JoinRequest) -> Result<(JoinTokenRow, Revision)> {
        let unknown = || refused("this join token is not known; make one with `heptad node join-token`");
        let key = rows::join_token(token.id());
        let kv = self.store.get(key.clone()).await.during("read", key)?.ok_or_else(unknown)?;
        let row: JoinTokenRow = rows::decoded(&kv)?;
        if !token.verify(&row.hash) {
            return Err(unknown());
        }
        if row.expires_at_ms <= now_ms() {
            return Err(refused("this join token has ended; make a new one with `heptad node join-token`"));
        }
        if row.role != request.role {
            let detail = format!("this join token is for a {}, not for a {}", row.role, request.role);
            return Err(Error::refused(ErrorCode::Forbidden, detail));
        }
        if let Some(name) = row.name.as_ref().filter(|name| **name != request.name) {
            return Err(Error::refused(ErrorCode::Forbidden, format!("this join token is for {name} only")));
        }
        Ok((row, kv.mod_revision))
    }

    async fn issue(&self, role: JoinRole, request: &JoinRequest) -> Result<IssuedCertificate> {
        let hosts: Vec<String> = request.address.iter().map(|address| address.ip().to_string()).collect();
        match role {
            JoinRole::Node => self.sign(&request.csr_pem, &SpiffeId::Node(request.name.as_str().into()), &[]).await,
            JoinRole::Server => self.sign(&request.csr_pem, &SpiffeId::Server(request.name.clone()), &hosts).await,
        }
    }

    /// Stages the use of the token and the key of the machine; nothing if it admitted this machine before.
    async fn stage_join(
        &self,
        token: &JoinToken,
        mut row: JoinTokenRow,
        revision: Revision,
        request: &JoinRequest,
        issued: &IssuedCertificate,
        pending: &mut Pending,
    ) -> Result<()> {
        let again = row.was_used_by(&request.name, &issued.key_sha256);
        let may_replace = row.name.is_some();
        if row.role == JoinRole::Node {
            let name = NodeName(request.name.clone());
            let old = self.node_row(&name).await?;
            let same = old.as_ref().is_some_and(|old| old.object.key_sha256.as_ref() == Some(&issued.key_sha256));
            if again && same {
                return Ok(());
            }
            if old.is_some() && !same && !may_replace {
                return Err(taken(&format!("node/{name}")));
            }
            stage_node(&name, old, &issued.key_sha256, request.address, pending)?;
        } else {
            let known = self.servers().list().await?.iter().any(|(name, _)| *name == request.name);
            if known && !again && !may_replace {
                return Err(taken(&format!("server/{}", request.name)));
            }
            if again {
                return Ok(());
            }
        }
        // A node that was removed and comes back with its old key uses the token once more.
        if row.used.len() >= usize::try_from(row.uses_max).unwrap_or(usize::MAX) {
            return Err(refused("this join token is used up; make a new one with `heptad node join-token`"));
        }
        row.used.push(Use { name: request.name.clone(), key_sha256: issued.key_sha256.clone() });
        pending.expect(&rows::join_token(token.id()), revision);
        pending.put(&rows::join_token(token.id()), &row);
        Ok(())
    }

    async fn node_row(&self, name: &NodeName) -> Result<Option<Object<Node>>> {
        let key = keys::node(name);
        let row = self.store.get(key.clone()).await.during("read", key)?;
        row.as_ref().map(row_object).transpose()
    }

    /// Creates the node of a machine whose server holds the keyring: it needs no token, and replaces an older key.
    pub async fn enroll_node(
        &self,
        name: &NodeName,
        csr_pem: &str,
        address: Option<SocketAddr>,
    ) -> Result<CertificateResponse> {
        let issued = self.sign(csr_pem, &SpiffeId::Node(name.clone()), &[]).await?;
        for _ in 0..JOIN_TRIES_MAX {
            let old = self.node_row(name).await?;
            let mut pending = Pending::default();
            stage_node(name, old, &issued.key_sha256, address, &mut pending)?;
            if pending.is_empty() || pending.commit(&*self.store).await?.is_some() {
                self.roster.set(name, Some(issued.key_sha256.clone()));
                return self.answer(issued).await;
            }
        }
        Err(Error::refused(ErrorCode::Busy, format!("node/{name} is changed by too many at once; try again")))
    }
}

fn taken(subject: &str) -> Error {
    let detail = format!(
        "{subject} exists; choose another name, remove it first, or make a join token for just this name with --name"
    );
    Error::refused(ErrorCode::AlreadyExists, detail)
}

/// Stages a node with this key and address; a new one has room for nothing until its agent reports what it has.
fn stage_node(
    name: &NodeName,
    old: Option<Object<Node>>,
    key_sha256: &str,
    address: Option<SocketAddr>,
    pending: &mut Pending,
) -> Result<()> {
    let (revision, before) = match old {
        Some(old) => (old.revision, Some(old.object)),
        None => (0, None),
    };
    let mut node = match &before {
        Some(node) => node.clone(),
        None => {
            let id = random::word(12, "a node's id")?;
            Node { id, status: NodeStatus::Unknown, ..Node::new(name.as_str(), ResourceVector::ZERO) }
        }
    };
    if before.as_ref().is_some_and(|before| before.key_sha256.as_deref() != Some(key_sha256)) {
        // Another machine, or the same one that a person admitted again: its agent reports anew what it has.
        (node.admitted, node.offered, node.set_by_person) = (None, None, false);
        // A wish to remove or empty the old machine does not apply to this one.
        if std::mem::take(&mut node.removing) {
            (node.draining, node.unschedulable) = (false, false);
        }
    }
    node.key_sha256 = Some(key_sha256.to_owned());
    node.address = address.or(node.address);
    if before.as_ref() != Some(&node) {
        pending.expect(&keys::node(name), revision);
        pending.put(&keys::node(name), &node);
    }
    Ok(())
}
