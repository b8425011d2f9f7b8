//! Random identifiers and tokens, the only use of entropy here.

use crate::error::{Error, Result};

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// `length` random letters and digits, 5 bits each.
pub(crate) fn word(length: usize, subject: &'static str) -> Result<String> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(|source| Error::Random { subject, source })?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
