//! Tokens: a public id and a random secret. Whoever checks them keeps only a hash.

use crate::{
    error::{Error, Result},
    random, sha256,
};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Letters of an id, 5 bits each.
const ID_LENGTH: usize = 8;
/// Letters of a secret, 5 bits each: 160 bits, so that a plain hash cannot be searched.
const SECRET_LENGTH: usize = 32;

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// `ID.SECRET`. Only [`Credential::expose`] shows the secret, not even `Debug`.
#[derive(Clone)]
pub struct Credential {
    id: String,
    secret: Zeroizing<String>,
}

/// What a machine presents when it joins.
pub type JoinToken = Credential;

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}..)", self.id)
    }
}

fn word(length: usize) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    random(&mut bytes, "a token")?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()))
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|letter| ALPHABET.contains(&letter))
}

impl Credential {
    /// A new one.
    pub fn generate() -> Result<Self> {
        Ok(Self { id: word(ID_LENGTH)?.to_string(), secret: word(SECRET_LENGTH)? })
    }

    /// Reads `ID.SECRET`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts =
            text.split_once('.').filter(|(id, secret)| is_word(id, ID_LENGTH) && is_word(secret, SECRET_LENGTH));
        let (id, secret) = parts.ok_or_else(|| Error::malformed("a token", "it is not ID.SECRET as it was printed"))?;
        Ok(Self { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// The public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole token, for its user.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.id, *self.secret))
    }

    /// What is stored of it: the SHA-256 in hexadecimal.
    pub fn hash(&self) -> String {
        hex::encode(sha256(self.expose().as_bytes()))
    }

    /// Whether `hash` is its hash. The time does not depend on where the two differ.
    pub fn verify(&self, hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone_and_says_nothing() {
        let (one, other) = (Credential::generate().expect("made"), Credential::generate().expect("made"));
        let read = Credential::parse(&one.expose()).expect("read");
        assert!(read.verify(&one.hash()) && !read.verify(&other.hash()) && !read.verify(""));
        assert!(!read.verify(&one.hash()[1..]) && !one.hash().contains(&*one.secret));
        assert!(!format!("{one:?}").contains(&*one.secret));
        let forged = Credential { id: one.id.clone(), secret: other.secret.clone() };
        assert!(!forged.verify(&one.hash()) && !forged.verify(&other.hash()), "the id is part of what is hashed");
    }

    proptest! {
        #[test]
        fn only_what_could_have_been_printed_is_read(text in ".{0,60}|[a-z2-9]{8}\\.[a-z2-9]{32}") {
            if let Ok(token) = Credential::parse(&text) {
                prop_assert_eq!(&*token.expose(), &text);
                prop_assert_eq!(text.len(), ID_LENGTH + 1 + SECRET_LENGTH);
            }
        }
    }
}
