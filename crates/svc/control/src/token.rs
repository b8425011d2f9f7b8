//! The token for TCP: random, in a file that only its owner can read, compared in constant time.

use crate::{
    error::{Error, Result},
    random,
};
use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Letters of a token, 5 bits each: 260 bits.
const TOKEN_LENGTH: usize = 52;

/// The bearer token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token of the file; created anew if the file is absent, is not a token, or could be read by others.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self> {
        let failed = |operation| {
            move |source| Error::Listen {
                operation,
                path: path.to_owned(),
                remedy: "the token file cannot be used; look at its directory's owner and mode",
                source,
            }
        };
        if let Some(token) = Self::load(path).map_err(failed("read"))? {
            return Ok(token);
        }
        let token = Self(random::word(TOKEN_LENGTH, "the token")?);
        token.write(path).map_err(failed("write"))?;
        Ok(token)
    }

    fn load(path: &Path) -> io::Result<Option<Self>> {
        let about = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            about => about?,
        };
        // Our own files belong to the owner of what we create; others' files are not trusted.
        let own = fs::metadata("/proc/self")?.uid();
        if !about.is_file() || about.permissions().mode() & 0o077 != 0 || about.uid() != own {
            return Ok(None);
        }
        let text = fs::read_to_string(path)?;
        let token = text.trim();
        let good = token.len() == TOKEN_LENGTH && token.bytes().all(|b| b.is_ascii_alphanumeric());
        Ok(good.then(|| Self(token.to_owned())))
    }

    /// Written under a temporary name and renamed, so that nobody ever reads half a token or a wider mode.
    fn write(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        writeln!(file, "{}", self.0)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    }

    /// Whether it is this token. The time does not depend on where the two differ.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(given).fold(0u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
        own.len() == given.len() && differences == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_is_secret_and_is_made_anew_if_others_could_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let first = Token::load_or_create(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::load_or_create(&path).expect("read"), first);
        assert!(first.is(first.0.as_bytes()));
        assert!(!first.is(b"") && !first.is(&first.0.as_bytes()[1..]) && !first.is(&[b'x'; TOKEN_LENGTH]));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert_ne!(Token::load_or_create(&path).expect("made anew"), first);
    }
}
