//! Which CA signs and which are trusted: a function of the rows and the time, the same on every server. A rotation
//! needs no second command: a new CA is at first only trusted, then signs; the old one is trusted until everything that
//! it signed has ended.

use super::{Trust, failed, rows, rows::AuthorityRow};
use crate::{
    clock::now_ms,
    error::{Error, Result},
    objects::Pending,
};
use heptad_api::{
    ErrorCode,
    trust::{AuthorityInfo, AuthorityState},
};
use heptad_pki::{Authority, CLOCK_SKEW_MS_MAX, ROOTS_MAX};
use heptad_state::Revision;
use std::time::Duration;

/// The CAs, in the order in which they sign.
#[derive(Clone, Debug)]
pub(crate) struct Authorities {
    rows: Vec<AuthorityRow>,
    revision: Revision,
}

impl Authorities {
    pub(super) fn new(mut rows: Vec<AuthorityRow>, revision: Revision) -> Self {
        rows.sort_by(|a, b| (a.signs_from_ms, &a.pin).cmp(&(b.signs_from_ms, &b.pin)));
        Self { rows, revision }
    }

    /// The newest CA whose time to sign has come; before that, the first.
    pub(crate) fn signing(&self, now_ms: u64) -> Option<&AuthorityRow> {
        self.rows.iter().rev().find(|row| row.signs_from_ms <= now_ms).or(self.rows.first())
    }

    /// When a CA is no longer trusted: when everything has ended that it signed before its successor took over.
    fn trusted_until_ms(&self, index: usize, certificate_ttl_ms: u64) -> Option<u64> {
        let successor = self.rows.get(index + 1)?;
        Some(successor.signs_from_ms.saturating_add(certificate_ttl_ms).saturating_add(2 * CLOCK_SKEW_MS_MAX))
    }

    /// Those that are trusted.
    pub(crate) fn trusted(&self, now_ms: u64, certificate_ttl_ms: u64) -> impl Iterator<Item = &AuthorityRow> {
        let live = move |index| self.trusted_until_ms(index, certificate_ttl_ms).is_none_or(|until| now_ms < until);
        self.rows.iter().enumerate().filter(move |(index, _)| live(*index)).map(|(_, row)| row)
    }

    /// What each one does, newest first.
    pub(crate) fn infos(&self, now_ms: u64, certificate_ttl_ms: u64) -> Vec<AuthorityInfo> {
        let signing = self.signing(now_ms).map(|row| row.pin.clone());
        let trusted: Vec<&str> = self.trusted(now_ms, certificate_ttl_ms).map(|row| row.pin.as_str()).collect();
        let rows = self.rows.iter().enumerate().rev().filter(|(_, row)| trusted.contains(&row.pin.as_str()));
        rows.map(|(index, row)| {
            let state = match () {
                () if signing.as_ref() == Some(&row.pin) => AuthorityState::Signing,
                () if row.signs_from_ms > now_ms => AuthorityState::Next,
                () => AuthorityState::Old,
            };
            let until_ms = match state {
                AuthorityState::Next => Some(row.signs_from_ms),
                AuthorityState::Signing => self.rows.get(index + 1).map(|next| next.signs_from_ms),
                AuthorityState::Old => self.trusted_until_ms(index, certificate_ttl_ms),
            };
            AuthorityInfo {
                pin: row.pin.clone(),
                state,
                created_at_ms: row.created_at_ms,
                not_after_ms: row.not_after_ms,
                until_ms,
            }
        })
        .collect()
    }
}

/// The row that two concurrent rotations both change.
const ROTATION: &str = "/trust/rotation";

impl Trust {
    /// What each CA does now.
    pub(crate) async fn authority_infos(&self) -> Result<Vec<AuthorityInfo>> {
        Ok(self.authorities().await?.infos(now_ms(), self.options.certificate_ttl_ms))
    }

    /// Creates a new CA. Refused while an earlier rotation has not gone far enough.
    pub(crate) async fn rotate(&self) -> Result<()> {
        let now = now_ms();
        let authorities = self.authorities().await?;
        let infos = authorities.infos(now, self.options.certificate_ttl_ms);
        if let Some(next) = infos.iter().find(|info| info.state == AuthorityState::Next) {
            let seconds = next.until_ms.unwrap_or(now).saturating_sub(now) / 1_000;
            let detail = format!("a new CA was made already and begins to sign in {seconds} s; wait until it has");
            return Err(Error::refused(ErrorCode::Conflict, detail));
        }
        if infos.len() >= ROOTS_MAX {
            let oldest = infos.last().and_then(|info| info.until_ms).unwrap_or(now);
            let minutes = oldest.saturating_sub(now) / 60_000;
            let detail = format!("{ROOTS_MAX} CAs are trusted; the oldest is dropped in {minutes} min, rotate then");
            return Err(Error::refused(ErrorCode::Conflict, detail));
        }
        let ttl = Duration::from_millis(self.options.authority_ttl_ms);
        let ca = Authority::generate(&self.cluster.trust_domain, now, ttl).map_err(failed("make a CA"))?;
        let row = AuthorityRow::seal(&ca, &self.keyring, now, now + self.options.authority_spread_ms)?;
        let mut pending = Pending::default();
        // If another server rotated since the check above, it has changed this row.
        pending.expect_unchanged(ROTATION, authorities.revision);
        pending.put(ROTATION, &row.pin);
        pending.put(&rows::authority(&row.pin), &row);
        let trusted: Vec<_> = infos.iter().map(|info| &info.pin).collect();
        for gone in authorities.rows.iter().filter(|row| !trusted.contains(&&row.pin)) {
            pending.delete(&rows::authority(&gone.pin));
        }
        match pending.commit(&*self.store).await? {
            Some(_) => Ok(()),
            None => Err(Error::refused(ErrorCode::Conflict, "somebody else rotates the CA at this moment")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: u64 = 1_000_000;

    fn row(pin: &str, created_at_ms: u64, signs_from_ms: u64) -> AuthorityRow {
        AuthorityRow {
            pin: pin.to_owned(),
            certificate_pem: String::new(),
            key_sealed: String::new(),
            created_at_ms,
            signs_from_ms,
            not_after_ms: u64::MAX,
        }
    }

    fn trusted(authorities: &Authorities, now: u64) -> Vec<&str> {
        authorities.trusted(now, TTL).map(|row| row.pin.as_str()).collect()
    }

    #[test]
    fn a_new_ca_is_trusted_before_it_signs_and_the_old_one_until_its_children_ended() {
        let cas = Authorities::new(vec![row("b", 500, 600), row("a", 0, 0)], 1);
        let signs = |now| cas.signing(now).map(|row| row.pin.as_str());
        assert_eq!((signs(599), signs(600)), (Some("a"), Some("b")));
        let end = 600 + TTL + 2 * CLOCK_SKEW_MS_MAX;
        assert_eq!(trusted(&cas, 599), ["a", "b"]);
        assert_eq!(trusted(&cas, end - 1), ["a", "b"]);
        assert_eq!(trusted(&cas, end), ["b"]);
        let states = |now| cas.infos(now, TTL).into_iter().map(|i| (i.pin, i.state, i.until_ms)).collect::<Vec<_>>();
        let (a, b) = ("a".to_owned(), "b".to_owned());
        assert_eq!(
            states(599),
            [(b.clone(), AuthorityState::Next, Some(600)), (a.clone(), AuthorityState::Signing, Some(600))]
        );
        assert_eq!(states(600), [(b.clone(), AuthorityState::Signing, None), (a, AuthorityState::Old, Some(end))]);
        assert_eq!(states(end), [(b, AuthorityState::Signing, None)]);
    }

    #[test]
    fn what_is_signed_is_trusted_whatever_the_times() {
        // Any signature made at `t` by the CA that then signs is trusted until it ends.
        let cas = Authorities::new(vec![row("a", 0, 0), row("b", 100, 700), row("c", 900, 1_500)], 1);
        for signed_at in (0..3_000).step_by(50) {
            let signer = cas.signing(signed_at).expect("there is one").pin.clone();
            for now in [signed_at, signed_at + TTL / 2, signed_at + TTL] {
                assert!(trusted(&cas, now).contains(&signer.as_str()), "{signer} at {signed_at}, looked at {now}");
            }
        }
    }
}
