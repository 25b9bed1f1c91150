//! Keys at rest: how private keys of authorities lie in the store.
//!
//! Without a key file they are base64 of PKCS#8, in a file that only its owner reads. With one they are
//! sealed by AES-256-GCM: `sealed:1:<key id>:<base64 of nonce, text and tag>`. What the key belongs to
//! is authenticated along, so that nobody who can write to the store can put one key in another's
//! place. The first key of a file seals; the others only open what they once sealed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::limits::{MAX_KEY_FILE_BYTES, MAX_KEYS};
use crate::model::hex;
use crate::store::private::{self, PrivateError};

const MARK: &str = "sealed:";
const FORMAT: &str = "1";
const KEY_BYTES: usize = 32;
/// Bytes of the hash that names a key.
const ID_BYTES: usize = 4;

/// Why keys cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    File(#[from] PrivateError),
    #[error(
        "{0} holds no key: a line has 32 random bytes in hex or base64, such as `openssl rand -hex 32` prints"
    )]
    NoKeys(PathBuf),
    #[error("line {line} of {path} is not 32 bytes in hex or base64", path = path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{path} holds more than {MAX_KEYS} keys", path = path.display())]
    TooMany { path: PathBuf },
    #[error(
        "the authority's key is encrypted (with key {id}) and no key was given; start the server with --ca-key-file"
    )]
    NeedsKey { id: String },
    #[error(
        "the authority's key was encrypted with key {id}, which is not in the file of --ca-key-file (it has {known}); \
         use the file that encrypted it, or add that key as a further line"
    )]
    WrongKey { id: String, known: String },
    #[error("the authority's key cannot be decrypted: it was changed, or moved from another place")]
    Damaged,
    #[error(
        "the authority's key is sealed in a format that this version does not know; use a later one"
    )]
    Format,
    #[error("the authority's key could not be sealed")]
    Unsealable,
}

/// The keys that seal and open. Cheap to clone; empty when nothing is encrypted.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<[Key]>,
}

struct Key {
    id: String,
    cipher: RandomizedNonceKey,
}

impl Keyring {
    /// Reads the keys of a file that only its owner may read, one a line.
    ///
    /// # Errors
    /// When the file is a link, open to others, or not such a file.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(private::read(path, MAX_KEY_FILE_BYTES)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| SealError::NoKeys(path.to_owned()))?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_text = line.trim();
            if line_text.is_empty() || line_text.starts_with('#') {
                continue;
            }
            let refused = || SealError::Line { path: path.to_owned(), line: index + 1 };
            let bytes = decode(line_text).ok_or_else(refused)?;
            keys.push(Key::new(&bytes)?);
        }
        match keys.len() {
            0 => Err(SealError::NoKeys(path.to_owned())),
            1..=MAX_KEYS => Ok(Self { keys: keys.into() }),
            _ => Err(SealError::TooMany { path: path.to_owned() }),
        }
    }

    /// Whether what is written from now on is encrypted.
    #[must_use]
    pub fn seals(&self) -> bool {
        !self.keys.is_empty()
    }

    /// A private key as it goes into the store; `place` says what it belongs to.
    pub(super) fn seal(&self, place: &str, secret: &[u8]) -> Result<String, SealError> {
        let Some(key) = self.keys.first() else { return Ok(STANDARD.encode(secret)) };
        // Room for the tag, so that the plain text is not left behind by a reallocation.
        let mut text = Vec::with_capacity(secret.len() + AES_256_GCM.tag_len());
        text.extend_from_slice(secret);
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut text)
            .map_err(|_| SealError::Unsealable)?;
        let mut bytes = nonce.as_ref().to_vec();
        bytes.append(&mut text);
        Ok(format!("{MARK}{FORMAT}:{}:{}", key.id, STANDARD.encode(bytes)))
    }

    /// The private key out of what [`Self::seal`] made, with or without a key.
    pub(super) fn open(&self, place: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let Some(rest) = text.strip_prefix(MARK) else {
            return STANDARD.decode(text).map(Zeroizing::new).map_err(|_| SealError::Damaged);
        };
        let (format, rest) = rest.split_once(':').ok_or(SealError::Damaged)?;
        if format != FORMAT {
            return Err(SealError::Format);
        }
        let (id, body) = rest.split_once(':').ok_or(SealError::Damaged)?;
        let mut bytes = Zeroizing::new(STANDARD.decode(body).map_err(|_| SealError::Damaged)?);
        let key = self.keys.iter().find(|key| key.id == id).ok_or_else(|| self.missing(id))?;
        let (nonce, text) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let aad = Aad::from(place.as_bytes());
        let plain = key.cipher.open_in_place(nonce, aad, text).map_err(|_| SealError::Damaged)?;
        Ok(Zeroizing::new(plain.to_vec()))
    }

    /// Whether a stored key is as this ring would write it.
    pub(super) fn is_current(&self, text: &str) -> bool {
        match self.keys.first() {
            None => true,
            Some(key) => text.starts_with(&format!("{MARK}{FORMAT}:{}:", key.id)),
        }
    }

    fn missing(&self, id: &str) -> SealError {
        let id = id.to_owned();
        if self.keys.is_empty() {
            return SealError::NeedsKey { id };
        }
        let known: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        SealError::WrongKey { id, known: known.join(", ") }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Result<Self, SealError> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| SealError::Unsealable)?;
        // Of 256 random bits a few hashed ones give nothing away.
        let hash = digest::digest(&digest::SHA256, bytes);
        Ok(Self { id: hex::encode(&hash.as_ref()[..ID_BYTES]), cipher })
    }
}

/// 32 bytes in hex or base64.
fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let bytes = Zeroizing::new(if text.len() == 2 * KEY_BYTES {
        let digit = |at: usize| text.as_bytes().get(at).and_then(|c| char::from(*c).to_digit(16));
        let byte = |at: usize| u8::try_from(digit(2 * at)? * 16 + digit(2 * at + 1)?).ok();
        (0..KEY_BYTES).map(byte).collect::<Option<Vec<u8>>>()?
    } else {
        STANDARD.decode(text).ok()?
    });
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn ring(text: &str) -> Result<Keyring, SealError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Keyring::read(&path)
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_at_the_same_place_only() {
        let ring_one = ring(HEX).unwrap();
        let sealed = ring_one.seal("here", b"secret").unwrap();
        assert!(!sealed.contains(&STANDARD.encode(b"secret")) && ring_one.is_current(&sealed));
        assert_ne!(sealed, ring_one.seal("here", b"secret").unwrap(), "the nonce is fresh");
        assert_eq!(*ring_one.open("here", &sealed).unwrap(), b"secret");
        assert!(matches!(ring_one.open("there", &sealed), Err(SealError::Damaged)));
        let other = ring(OTHER).unwrap();
        assert!(matches!(other.open("here", &sealed), Err(SealError::WrongKey { .. })));
        assert!(matches!(Keyring::default().open("here", &sealed), Err(SealError::NeedsKey { .. })));
        let both = ring(&format!("# new\n{OTHER}\n\n{HEX}\n")).unwrap();
        assert_eq!(*both.open("here", &sealed).unwrap(), b"secret");
        assert!(!both.is_current(&sealed) && other.is_current(&both.seal("here", b"s").unwrap()));
    }

    #[test]
    fn each_byte_counts() {
        let ring = ring(HEX).unwrap();
        let sealed = ring.seal("here", b"secret").unwrap();
        let (head, body) = sealed.rsplit_once(':').unwrap();
        let bytes = STANDARD.decode(body).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let text = format!("{head}:{}", STANDARD.encode(&changed));
            assert!(matches!(ring.open("here", &text), Err(SealError::Damaged)), "{at}");
            let text = format!("{head}:{}", STANDARD.encode(&bytes[..at]));
            assert!(matches!(ring.open("here", &text), Err(SealError::Damaged)), "{at}");
        }
        let later = sealed.replacen(":1:", ":2:", 1);
        assert!(matches!(ring.open("here", &later), Err(SealError::Format)));
    }

    #[test]
    fn key_files_by_table() {
        let base64 = STANDARD.encode([7; 32]);
        for (text, good) in [
            (HEX, true),
            (&HEX.to_uppercase(), true),
            (&format!("  {base64} \n"), true),
            ("", false),
            ("# nothing\n", false),
            (&HEX[1..], false),
            (&format!("{HEX}00"), false),
            (&STANDARD.encode([7; 31]), false),
            ("password", false),
            (&format!("{HEX}\n").repeat(9), false),
        ] {
            assert_eq!(ring(text).is_ok(), good, "{text:?}");
        }
        assert!(!format!("{:?}", ring(HEX).unwrap()).contains("0001"));
    }
}
