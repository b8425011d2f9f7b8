//! The key that seals secrets, in a file of the data directory; created at the first start. Whoever has this file and
//! the state can read every secret, so a backup of the state alone reveals none.

use super::PlatformError;
use heptad_pki::Keyring;
use std::{path::Path, sync::Arc};

/// The file's name in the data directory.
const KEYRING_FILE: &str = "keyring";

/// The keyring of the platform in `data_dir`; creates one if there is none.
pub(super) fn load_or_create(data_dir: &Path) -> Result<Arc<Keyring>, PlatformError> {
    let file = data_dir.join(KEYRING_FILE);
    if file.exists() {
        return Ok(Arc::new(Keyring::load(&file)?));
    }
    let fresh = Keyring::generate()?;
    fresh.save(&file)?;
    Ok(Arc::new(fresh))
}
