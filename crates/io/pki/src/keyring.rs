//! Seals what must not be stored in the clear: every text is encrypted with a key of its own, and that key with one of
//! the keyring's (envelope encryption). After a rotation, older keys still open what they sealed.

use crate::{
    error::{Error, Result},
    file::{read_private, write_private},
    random,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use std::{fmt, path::Path};
use zeroize::{Zeroize, Zeroizing};

/// The most keys in a keyring.
const KEYS_MAX: usize = 16;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// The format of sealed bytes: format, key id, nonce and sealed data key, nonce and sealed text.
const FORM: u8 = 1;
const ENVELOPE_BYTES: usize = NONCE_LEN + KEY_BYTES + TAG_BYTES;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + ENVELOPE_BYTES;

/// The keys under which secrets are sealed; the last one seals, all open.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    /// Hexadecimal.
    id: String,
    /// Hexadecimal.
    key: String,
}

impl Drop for Key {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.key_ids()).finish()
    }
}

fn bytes_of<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    hex::decode_to_slice(text, &mut *bytes).ok()?;
    Some(bytes)
}

fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the length that the cipher asks"))
}

/// Encrypts with a fresh nonce, which is put in front.
fn encrypt(key: &[u8], aad: &[u8], text: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0; NONCE_LEN];
    random(&mut nonce, "a nonce")?;
    let mut sealed = nonce.to_vec();
    let mut inside = Zeroizing::new(text.to_vec());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(aad), &mut inside)
        .map_err(|_| Error::make("a sealed text", "it is too long for the cipher"))?;
    sealed.extend_from_slice(&inside);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

fn decrypt(key: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
    let mut inside = Zeroizing::new(rest.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let length = cipher(key).open_in_place(nonce, Aad::from(aad), &mut inside).ok()?.len();
    inside.truncate(length);
    Some(inside)
}

impl Key {
    fn generate() -> Result<Self> {
        let (mut id, mut key) = ([0; KEY_ID_BYTES], Zeroizing::new([0; KEY_BYTES]));
        random(&mut id, "a key's id")?;
        random(&mut *key, "a key")?;
        Ok(Self { id: hex::encode(id), key: hex::encode(key.as_slice()) })
    }

    fn id(&self) -> Result<Zeroizing<[u8; KEY_ID_BYTES]>> {
        bytes_of(&self.id).ok_or_else(|| Error::malformed("a keyring", "a key's id is not 16 hexadecimal digits"))
    }

    fn key(&self) -> Result<Zeroizing<[u8; KEY_BYTES]>> {
        bytes_of(&self.key).ok_or_else(|| Error::malformed("a keyring", "a key is not 64 hexadecimal digits"))
    }
}

impl Keyring {
    /// A keyring with one new key.
    pub fn generate() -> Result<Self> {
        Ok(Self { keys: vec![Key::generate()?] })
    }

    /// Reads a keyring from its text.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let ring: Self = serde_json::from_slice(text).map_err(|source| Error::unreadable("a keyring", source))?;
        if ring.keys.is_empty() || ring.keys.len() > KEYS_MAX {
            return Err(Error::malformed(
                "a keyring",
                format!("it has {} keys; there are 1 to {KEYS_MAX}", ring.keys.len()),
            ));
        }
        for key in &ring.keys {
            key.id()?;
            key.key()?;
        }
        Ok(ring)
    }

    /// The keyring as text, for those who may open everything.
    pub fn to_json(&self) -> Zeroizing<String> {
        Zeroizing::new(serde_json::to_string_pretty(self).expect("a keyring has string keys and serializes"))
    }

    /// Reads the keyring from a file that only its owner may read.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(&read_private(path)?)
    }

    /// Writes the keyring to a file with mode 0600.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_private(path, self.to_json().as_bytes())
    }

    /// The ids of the keys; the last one seals.
    pub fn key_ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.id.as_str()).collect()
    }

    fn sealing(&self) -> &Key {
        self.keys.last().expect("a keyring has at least one key")
    }

    fn of_id(&self, id: &[u8]) -> Option<&Key> {
        let id = hex::encode(id);
        self.keys.iter().find(|key| key.id == id)
    }

    /// Adds a new key, which seals from now on. The older ones stay.
    pub fn rotate(&mut self) -> Result<()> {
        if self.keys.len() == KEYS_MAX {
            let reason = format!("it has {KEYS_MAX} keys; seal everything anew and forget the old ones first");
            return Err(Error::mismatch("a keyring", reason));
        }
        self.keys.push(Key::generate()?);
        Ok(())
    }

    /// Forgets all keys but the one that seals. What the others sealed is lost unless it was [sealed
    /// anew](Self::reseal).
    pub fn forget_old(&mut self) {
        self.keys.drain(..self.keys.len() - 1);
    }

    /// Seals a text. `aad` says what it is and where it belongs; it is not stored, and opening needs the same value.
    pub fn seal(&self, aad: &str, text: &[u8]) -> Result<Vec<u8>> {
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        random(&mut *data_key, "a data key")?;
        let mut sealed = self.envelope(aad, &*data_key)?;
        sealed.extend(encrypt(&*data_key, aad.as_bytes(), text)?);
        Ok(sealed)
    }

    fn envelope(&self, aad: &str, data_key: &[u8]) -> Result<Vec<u8>> {
        let key = self.sealing();
        let mut envelope = vec![FORM];
        envelope.extend_from_slice(&*key.id()?);
        envelope.extend(encrypt(&*key.key()?, aad.as_bytes(), data_key)?);
        Ok(envelope)
    }

    /// Opens what was sealed with the same `aad`.
    pub fn open(&self, aad: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let data_key = self.data_key(aad, sealed)?;
        decrypt(&data_key, aad.as_bytes(), &sealed[HEAD_BYTES..])
            .ok_or_else(|| unsealable(aad, "it was changed, or belongs elsewhere"))
    }

    fn data_key(&self, aad: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let head = sealed.get(..HEAD_BYTES).ok_or_else(|| unsealable(aad, "it is too short"))?;
        if head[0] != FORM {
            return Err(unsealable(aad, "it has a form that this version does not know"));
        }
        let (id, envelope) = head[1..].split_at(KEY_ID_BYTES);
        let key = self.of_id(id).ok_or_else(|| unsealable(aad, "the keyring does not have its key"))?;
        decrypt(&*key.key()?, aad.as_bytes(), envelope)
            .filter(|key| key.len() == KEY_BYTES)
            .ok_or_else(|| unsealable(aad, "it was changed, or belongs elsewhere"))
    }

    /// The same text sealed under the newest key, if it was sealed under an older one; the text itself is unchanged.
    pub fn reseal(&self, aad: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
        let data_key = self.data_key(aad, sealed)?;
        if sealed[1..=KEY_ID_BYTES] == *self.sealing().id()? {
            return Ok(None);
        }
        let mut anew = self.envelope(aad, &data_key)?;
        anew.extend_from_slice(&sealed[HEAD_BYTES..]);
        Ok(Some(anew))
    }
}

fn unsealable(aad: &str, reason: &'static str) -> Error {
    Error::Unsealable { subject: aad.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn older_keys_open_until_they_are_forgotten() {
        let mut ring = Keyring::generate().expect("made");
        let old = ring.seal("secret/a", b"text").expect("sealed");
        assert_eq!(ring.reseal("secret/a", &old).expect("tried"), None);
        ring.rotate().expect("rotated");
        assert_eq!(*ring.open("secret/a", &old).expect("opened"), b"text");
        let anew = ring.reseal("secret/a", &old).expect("resealed").expect("it was under the older key");
        ring.forget_old();
        assert_eq!(*ring.open("secret/a", &anew).expect("opened"), b"text");
        assert!(ring.open("secret/a", &old).is_err());
        assert_eq!(ring.key_ids().len(), 1);
    }

    #[test]
    fn a_keyring_is_read_as_it_was_written_and_shows_no_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("keyring");
        let mut ring = Keyring::generate().expect("made");
        ring.rotate().expect("rotated");
        ring.save(&path).expect("written");
        let read = Keyring::load(&path).expect("read");
        let sealed = ring.seal("x", b"text").expect("sealed");
        assert_eq!(*read.open("x", &sealed).expect("opened"), b"text");
        assert!(ring.keys.iter().all(|key| !format!("{ring:?}").contains(&key.key)));
        for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"id":"00","key":"00"}]}"#] {
            assert!(Keyring::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn rotations_are_bounded() {
        let mut ring = Keyring::generate().expect("made");
        let done = (0..100).take_while(|_| ring.rotate().is_ok()).count();
        assert_eq!(done, KEYS_MAX - 1);
        assert_eq!(Keyring::from_json(ring.to_json().as_bytes()).expect("read").key_ids(), ring.key_ids());
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_noticed(text in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let ring = Keyring::generate().expect("made");
            let sealed = ring.seal("secret/a", &text).expect("sealed");
            prop_assert_eq!(&**ring.open("secret/a", &sealed).expect("opened"), &text[..]);
            prop_assert!(ring.open("secret/b", &sealed).is_err());
            let mut changed = sealed.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(ring.open("secret/a", &changed).is_err());
            prop_assert!(ring.open("secret/a", &sealed[..at]).is_err());
        }
    }
}
