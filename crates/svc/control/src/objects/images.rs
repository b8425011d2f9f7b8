//! The meaning of a tag when a revision began: the first digest that a node found for it. All containers of the
//! revision run that digest, on any node and however often they are started.

use super::{Objects, Pending, row_value};
use crate::{
    error::{Error, Result, StoreContext},
    keys,
};
use heptad_api::{ErrorCode, operations::ImagePin};
use heptad_model::{Container, ContainerId, Namespace, Revision};
use heptad_state::StoreExt;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct ImageRow {
    /// A service recreated under the same name has revisions of its own.
    service_id: String,
    digest: String,
}

/// Whether it is written as OCI has it.
fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.or_else(|| text.strip_prefix("sha512:").filter(|hex| hex.len() == 128));
    hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
}

impl Objects {
    /// The digest that the container is to run. If none is known yet, the proposed one is used from now on.
    pub async fn container_image(&self, id: &ContainerId, proposed: ImagePin) -> Result<ImagePin> {
        if let Some(text) = proposed.digest.as_deref().filter(|text| !is_digest(text)) {
            let detail = format!("`{text}` is not a digest such as sha256:0123...");
            return Err(Error::refused(ErrorCode::BadRequest, detail));
        }
        let container = self.get::<Container>(&Namespace::default(), id.as_str()).await?.object;
        let (key, of) = (
            keys::image(&container.service, container.revision),
            keys::revision(&container.service, container.revision),
        );
        for _ in 0..super::WRITE_TRIES_MAX {
            let row = self.store.get(key.clone()).await.during("read", &key)?;
            let at = row.as_ref().map_or(0, |row| row.mod_revision);
            let known = row.as_ref().map(row_value::<ImageRow>).transpose()?;
            if let Some(known) = known.filter(|known| known.service_id == container.service_id) {
                return Ok(ImagePin { digest: Some(known.digest) });
            }
            let Some(digest) = proposed.digest.clone() else { return Ok(proposed) };
            let Some(revision) = self.store.get(of.clone()).await.during("read", &of)? else {
                // The revision is forgotten, and its remaining containers are about to be replaced.
                return Ok(proposed);
            };
            if row_value::<Revision>(&revision)?.service_id != container.service_id {
                return Ok(proposed);
            }
            let mut pending = Pending::default();
            pending.expect(&key, at);
            pending.expect(&of, revision.mod_revision);
            pending.put(&key, &ImageRow { service_id: container.service_id.clone(), digest });
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(proposed);
            }
        }
        let detail = format!("container/{id}: its revision is changed by too many at once; try again");
        Err(Error::refused(ErrorCode::Busy, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::is_digest;

    #[test]
    fn digests() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_digest(&format!("sha256:{hex}")) && is_digest(&format!("sha512:{hex}{hex}")));
        for text in ["", "sha256:", &hex, &format!("sha512:{hex}"), &format!("sha256:{}", hex.to_uppercase())] {
            assert!(!is_digest(text), "{text}");
        }
    }
}
