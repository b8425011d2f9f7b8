//! Tokens of people: made, listed, revoked, recognized. Rows hold hashes only.

use super::{Trust, failed, rows, rows::TokenRow};
use crate::{
    clock::now_ms,
    error::{Error, Result, StoreContext},
    keys,
    objects::Pending,
};
use heptad_api::{
    ErrorCode, ProblemDetails,
    trust::{Role, TOKEN_NAME_BYTES_MAX, TokenCreated, TokenInfo, TokenRequest},
};
use heptad_model::Problem;
use heptad_pki::Credential;
use heptad_state::StoreExt;

/// How many tokens are kept; more people than this need another way.
const TOKENS_MAX: usize = 10_000;

/// The person who presented a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
}

impl TokenRow {
    fn info(self, id: &str) -> TokenInfo {
        TokenInfo {
            id: id.to_owned(),
            name: self.name,
            role: self.role,
            created_by: self.created_by,
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

fn checked(request: &TokenRequest) -> Result<()> {
    let mut problems = Vec::new();
    if request.name.trim().is_empty() || request.name.len() > TOKEN_NAME_BYTES_MAX {
        let message = format!("say whose it is in 1 to {TOKEN_NAME_BYTES_MAX} bytes");
        problems.push(Problem { path: "name".into(), message });
    }
    if request.name.chars().any(char::is_control) {
        problems.push(Problem { path: "name".into(), message: "it has control characters".into() });
    }
    if request.ttl_ms == Some(0) {
        problems.push(Problem { path: "ttl_ms".into(), message: "it must be at least 1".into() });
    }
    if problems.is_empty() { Ok(()) } else { Err(ProblemDetails::invalid("no token was made", problems).into()) }
}

impl Trust {
    /// The person of a token; the error gives the remedy, but not what exactly was wrong.
    pub(crate) async fn person(&self, token: &[u8]) -> Result<Person> {
        let wrong = || Error::refused(ErrorCode::Unauthorized, "this token is not known; log in with one that is");
        let text = std::str::from_utf8(token).map_err(|_| wrong())?;
        let token = Credential::parse(text).map_err(|_| wrong())?;
        let key = rows::token(token.id());
        let row = self.store.get(key.clone()).await.during("read", key)?.ok_or_else(wrong)?;
        let row: TokenRow = rows::decoded(&row)?;
        if !token.verify(&row.hash) {
            return Err(wrong());
        }
        if row.expires_at_ms.is_some_and(|end| end <= now_ms()) {
            return Err(Error::refused(ErrorCode::Unauthorized, "this token has ended; ask for a new one"));
        }
        Ok(Person { id: token.id().to_owned(), name: row.name, role: row.role })
    }

    pub(crate) async fn create_token(&self, request: TokenRequest, by: &str) -> Result<TokenCreated> {
        checked(&request)?;
        if self.tokens().await?.len() >= TOKENS_MAX {
            let detail = format!("there are {TOKENS_MAX} tokens; revoke some first");
            return Err(Error::refused(ErrorCode::TooLarge, detail));
        }
        let token = Credential::generate().map_err(failed("make a token"))?;
        let now = now_ms();
        let row = TokenRow {
            hash: token.hash(),
            name: request.name,
            role: request.role,
            created_by: by.to_owned(),
            created_at_ms: now,
            expires_at_ms: request.ttl_ms.map(|ttl| now.saturating_add(ttl)),
        };
        let mut pending = Pending::default();
        pending.expect(&rows::token(token.id()), 0);
        pending.put(&rows::token(token.id()), &row);
        if pending.commit(&*self.store).await?.is_none() {
            return Err(Error::refused(ErrorCode::Busy, "the token's id is taken; try again"));
        }
        Ok(TokenCreated { token: token.expose().to_string(), info: row.info(token.id()) })
    }

    pub(crate) async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let (rows, _) = self.store.list(rows::TOKENS).await.during("list", "tokens")?;
        let infos = rows.iter().map(|kv| {
            let id = keys::shown(&kv.key)[rows::TOKENS.len()..].to_owned();
            Ok(rows::decoded::<TokenRow>(kv)?.info(&id))
        });
        infos.collect()
    }

    /// Revokes a token. The last administrator's token without an end stays: without it, nobody could make another.
    pub(crate) async fn delete_token(&self, id: &str) -> Result<()> {
        let lasting = |info: &&TokenInfo| info.role == Role::Admin && info.expires_at_ms.is_none();
        let infos = self.tokens().await?;
        let found = infos.iter().find(|info| info.id == id);
        let found = found.ok_or_else(|| Error::not_found(&format!("token/{id}")))?;
        if lasting(&found) && infos.iter().filter(lasting).count() == 1 {
            let detail = "this is the last token of an administrator; make another one first";
            return Err(Error::refused(ErrorCode::Conflict, detail));
        }
        self.store.delete(rows::token(id)).await.during("delete", rows::token(id)).map(|_| ())
    }
}
