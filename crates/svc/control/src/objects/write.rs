//! Writing objects: create, replace, patch, delete, and many in one transaction.

use super::{
    Batch, Kept, Objects, Pending, Staged,
    batch::{Mode, expected},
    decode::patched,
    subject,
};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
    reports::diff,
};
use heptad_api::{
    ErrorCode, Manifest, Object, ProblemDetails,
    operations::{APPLY_OBJECTS_MAX, ApplyRequest, ApplyResponse, ApplyResult, Outcome},
    with_manifest,
};
use heptad_model::Namespace;
use heptad_state::Revision;
use serde_json::Value;
use std::collections::BTreeSet;

fn contended(subject: &str) -> Error {
    Error::refused(ErrorCode::Busy, format!("{subject} is changed by too many at once; try again"))
}

impl Objects {
    /// Makes a new object; refused if it exists.
    pub async fn create<T: Kept>(&self, object: T) -> Result<Object<T>> {
        self.write(object, Mode::Create).await
    }

    /// Makes or replaces an object; with a revision only if that is its present one.
    pub async fn replace<T: Kept>(&self, object: T, revision: Option<Revision>) -> Result<Object<T>> {
        self.write(object, Mode::Replace(revision)).await
    }

    async fn write<T: Kept>(&self, object: T, mode: Mode) -> Result<Object<T>> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let mut batch = Batch::new(self);
            let staged = batch.stage(object.clone(), mode).await?;
            batch.claim_hosts().await?;
            if let Some(written) = self.finish(batch.pending, staged).await? {
                return Ok(written);
            }
        }
        Err(contended(&subject(T::KIND, &object.namespace().cloned().unwrap_or_default(), object.name())))
    }

    /// Commits one staged object; none if something changed meanwhile.
    async fn finish<T: Kept>(&self, pending: Pending, staged: Staged<T>) -> Result<Option<Object<T>>> {
        let Staged { old, new, outcome } = staged;
        let mut done = match old {
            Some(old) if outcome == Outcome::Unchanged => old,
            _ => match pending.commit(&*self.store).await? {
                Some(revision) => Object { revision, object: new },
                None => return Ok(None),
            },
        };
        if T::ALLOCATED {
            let (allocation, _) = self.allocation(&done.object.name().into()).await?;
            done.object.derive(&allocation);
        }
        Ok(Some(done))
    }

    /// Merges `patch` (RFC 7396) into an object; with a revision only if that is its present one.
    pub async fn patch<T: Kept>(
        &self,
        namespace: &Namespace,
        name: &str,
        patch: &Value,
        revision: Option<Revision>,
    ) -> Result<Object<T>> {
        let subject = subject(T::KIND, namespace, name);
        let key = keys::object(T::KIND, namespace, name);
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.find_row::<T>(&key).await?.ok_or_else(|| Error::not_found(&subject))?;
            expected(Mode::Replace(revision), Some(old.revision), &subject)?;
            let new = patched(&old.object, patch)?;
            if keys::of(&new) != key {
                let detail = format!("{subject} cannot be renamed or moved; make a new one and delete this");
                return Err(Error::refused(ErrorCode::BadRequest, detail));
            }
            let mut batch = Batch::new(self);
            // A change since the read is no conflict of the client unless it named a revision.
            match batch.stage(new, Mode::Replace(Some(old.revision))).await {
                Ok(staged) => {
                    batch.claim_hosts().await?;
                    if let Some(written) = self.finish(batch.pending, staged).await? {
                        return Ok(written);
                    }
                }
                Err(error) if error.code() == ErrorCode::Conflict && revision.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Err(contended(&subject))
    }

    /// Deletes an object and returns its last state; with a revision only if that is its present one. A node that
    /// still has containers is not deleted; the containers of a service are stopped.
    pub async fn delete<T: Kept>(
        &self,
        namespace: &Namespace,
        name: &str,
        revision: Option<Revision>,
    ) -> Result<Object<T>> {
        let subject = subject(T::KIND, namespace, name);
        let key = keys::object(T::KIND, namespace, name);
        for _ in 0..super::WRITE_TRIES_MAX {
            let old = self.find_row::<T>(&key).await?.ok_or_else(|| Error::not_found(&subject))?;
            expected(Mode::Replace(revision), Some(old.revision), &subject)?;
            let mut pending = Pending::default();
            pending.expect(&key, old.revision);
            pending.delete(&key);
            T::unstage(self, namespace, name, &mut pending).await?;
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(old);
            }
        }
        Err(contended(&subject))
    }

    /// Makes objects as they are written, all in one transaction; what is so already is not written.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyResponse> {
        distinct(request)?;
        for _ in 0..super::WRITE_TRIES_MAX {
            let (pending, results) = self.stage_all(request).await?;
            if pending.is_empty() {
                let revision = self.store.current_revision().await.during("read", "the revision")?;
                return Ok(ApplyResponse { revision, results });
            }
            if let Some(revision) = pending.commit(&*self.store).await? {
                return Ok(ApplyResponse { revision, results });
            }
        }
        Err(contended("one of the objects"))
    }

    /// Stages all objects; all problems of all of them are said at once.
    pub(crate) async fn stage_all(&self, request: &ApplyRequest) -> Result<(Pending, Vec<ApplyResult>)> {
        let mut batch = Batch::new(self);
        let (mut results, mut problems) = (Vec::new(), Vec::new());
        for (i, manifest) in request.objects.iter().enumerate() {
            match stage_manifest(&mut batch, manifest).await {
                Ok(result) => results.push(result),
                Err(Error::Refused(refused)) if refused.code == ErrorCode::Invalid => {
                    let subject = named(manifest);
                    problems.extend(refused.problems.into_iter().map(|mut problem| {
                        problem.path = format!("objects[{i}].{}", problem.path);
                        problem.message = format!("{} ({subject})", problem.message);
                        problem
                    }));
                }
                Err(error) => return Err(error),
            }
        }
        if problems.is_empty() {
            batch.claim_hosts().await?;
            return Ok((batch.pending, results));
        }
        Err(ProblemDetails::invalid("nothing was applied", problems).into())
    }
}

/// The object for messages.
fn named(manifest: &Manifest) -> String {
    subject(manifest.kind(), &manifest.namespace().cloned().unwrap_or_default(), manifest.name())
}

/// The request names each object once and not too many.
pub(crate) fn distinct(request: &ApplyRequest) -> Result<()> {
    let count = request.objects.len();
    if count > APPLY_OBJECTS_MAX {
        let detail = format!("{count} objects; at most {APPLY_OBJECTS_MAX} can be applied at once");
        return Err(Error::refused(ErrorCode::TooLarge, detail));
    }
    let mut seen = BTreeSet::new();
    for manifest in &request.objects {
        let subject = named(manifest);
        if !seen.insert(subject.clone()) {
            return Err(Error::refused(ErrorCode::BadRequest, format!("{subject} is written twice")));
        }
    }
    Ok(())
}

async fn stage_manifest(batch: &mut Batch<'_>, manifest: &Manifest) -> Result<ApplyResult> {
    let (outcome, changes) =
        with_manifest!(manifest, object => summed(batch.stage(object.clone(), Mode::Replace(None)).await?));
    Ok(ApplyResult {
        kind: manifest.kind(),
        namespace: manifest.namespace().cloned().unwrap_or_default(),
        name: manifest.name().to_owned(),
        outcome,
        changes,
    })
}

fn summed<T: Kept>(staged: Staged<T>) -> (Outcome, Vec<heptad_api::operations::FieldChange>) {
    let changes = staged.old.map(|old| diff::changes(&old.object, &staged.new)).unwrap_or_default();
    (staged.outcome, changes)
}
