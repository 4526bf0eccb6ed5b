//! Keystores: a secret key in a JSON file, under a password.
//!
//! What a file demands is bounded before memory or time is taken for it. An error names the field and never holds what
//! stands there, except numbers: the file that somebody named by mistake may be another secret.
//!
//! Source: EIP-2335, version 4; the path is EIP-2334's.

use alloy_primitives::{FixedBytes, hex};
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use engine::{crypto::bls::SecretKey, types::PublicKey};
use eyre::{bail, ensure, eyre};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// Largest keystore that is read, in bytes; some 900 are usual.
pub(crate) const KEYSTORE_BYTES_MAX: u64 = 16 << 10;
/// Most memory that scrypt may take, in bytes: twice what the EIP's own parameters take.
const SCRYPT_MEMORY_MAX: u64 = 512 << 20;
/// Most memory that scrypt may fill, in bytes: four times what the EIP's own parameters do, some seconds.
const SCRYPT_WORK_MAX: u64 = 1 << 30;
/// Most rounds of PBKDF2: sixteen times the EIP's own, some seconds.
const PBKDF2_ROUNDS_MAX: u64 = 1 << 22;
/// Bytes of a salt; 32 are usual.
const SALT_BYTES_MAX: usize = 256;
/// Characters of a path; some 16 are usual.
const PATH_CHARACTERS_MAX: usize = 128;
/// Characters of a description that is shown or kept.
const DESCRIPTION_CHARACTERS_MAX: usize = 256;
/// Bytes that the cipher and the checksum take their keys from.
const DERIVED_BYTES: usize = 32;

/// A password as the EIP has it: in the form NFKD, without control codes.
pub(crate) struct Password(Zeroizing<String>);

impl Password {
    /// Normalises what a person chose; `None` if nothing is left.
    pub(crate) fn new(text: &str) -> Option<Self> {
        // No character grows elevenfold in this form, so the text never moves and leaves no copy behind.
        let mut normal = Zeroizing::new(String::with_capacity(text.len().saturating_mul(11)));
        // C0, C1 and Delete.
        normal.extend(text.nfkd().filter(|letter| !letter.is_control()));
        (!normal.is_empty()).then_some(Self(normal))
    }
}

/// How a password becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kdf {
    /// RFC 7914; n is 2 to the power of `log_n`.
    Scrypt { log_n: u8, r: u32, p: u32 },
    /// RFC 8018 over HMAC-SHA-256.
    Pbkdf2 { rounds: u32 },
}

impl Kdf {
    /// The EIP's own: 256 MiB, about a second.
    pub(crate) const SCRYPT: Self = Self::Scrypt { log_n: 18, r: 8, p: 1 };
    /// The EIP's other: little memory, so that machines made for guessing are faster at it.
    pub(crate) const PBKDF2: Self = Self::Pbkdf2 { rounds: 262_144 };
    /// Some milliseconds, for networks whose keys are worth nothing.
    pub(crate) const LIGHT: Self = Self::Scrypt { log_n: 10, r: 8, p: 1 };

    fn derive(self, password: &Password, salt: &[u8]) -> eyre::Result<Zeroizing<[u8; DERIVED_BYTES]>> {
        let mut key = Zeroizing::new([0; DERIVED_BYTES]);
        let password = password.0.as_bytes();
        match self {
            Self::Scrypt { log_n, r, p } => {
                let refuse = || eyre!("crypto.kdf.params are none of scrypt's");
                let params = scrypt::Params::new(log_n, r, p, DERIVED_BYTES).map_err(|_| refuse())?;
                scrypt::scrypt(password, salt, &params, key.as_mut_slice()).map_err(|_| refuse())?;
            }
            Self::Pbkdf2 { rounds } => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, key.as_mut_slice()),
        }
        Ok(key)
    }

    fn read(kdf: &Field<'_>) -> eyre::Result<Self> {
        let params = kdf.at("params")?;
        params.at("dklen")?.number(DERIVED_BYTES as u64, DERIVED_BYTES as u64)?;
        let function = kdf.at("function")?;
        match function.text()? {
            "scrypt" => {
                let (n, r, p) = (params.at("n")?, params.at("r")?, params.at("p")?);
                let count = n.number(2, SCRYPT_MEMORY_MAX)?;
                ensure!(count.is_power_of_two(), "{} is {count}: must be a power of two", n.name);
                let (size, lanes) = (r.number(1, u64::from(u32::MAX))?, p.number(1, u64::from(u32::MAX))?);
                let bytes = |blocks: u64| blocks.saturating_mul(128).saturating_mul(size);
                let memory = bytes(count.saturating_add(lanes));
                let name = &params.name;
                ensure!(memory <= SCRYPT_MEMORY_MAX, "{name} take {memory} bytes: at most {SCRYPT_MEMORY_MAX}");
                let work = bytes(count.saturating_mul(lanes));
                ensure!(work <= SCRYPT_WORK_MAX, "{name} fill {work} bytes: at most {SCRYPT_WORK_MAX}");
                let log_n = u8::try_from(count.trailing_zeros())?;
                Ok(Self::Scrypt { log_n, r: u32::try_from(size)?, p: u32::try_from(lanes)? })
            }
            "pbkdf2" => {
                let prf = params.at("prf")?;
                ensure!(prf.text()? == "hmac-sha256", "{} must be hmac-sha256", prf.name);
                Ok(Self::Pbkdf2 { rounds: u32::try_from(params.at("c")?.number(1, PBKDF2_ROUNDS_MAX)?)? })
            }
            _ => bail!("{} must be scrypt or pbkdf2", function.name),
        }
    }

    fn write(self, salt: &[u8]) -> Value {
        let salt = hex::encode(salt);
        let (function, params) = match self {
            Self::Scrypt { log_n, r, p } => {
                ("scrypt", json!({"dklen": DERIVED_BYTES, "n": 1_u64 << log_n.min(63), "r": r, "p": p, "salt": salt}))
            }
            Self::Pbkdf2 { rounds } => {
                ("pbkdf2", json!({"dklen": DERIVED_BYTES, "c": rounds, "prf": "hmac-sha256", "salt": salt}))
            }
        };
        json!({"function": function, "params": params, "message": ""})
    }
}

/// What is drawn for a new keystore.
pub(crate) struct Drawn {
    pub(crate) salt: [u8; 32],
    pub(crate) iv: [u8; 16],
    pub(crate) uuid: [u8; 16],
}

/// A keystore whose every field was checked; the key is still under its password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Keystore {
    /// How the password becomes a key.
    pub(crate) kdf: Kdf,
    salt: Vec<u8>,
    checksum: [u8; 32],
    iv: [u8; 16],
    sealed: [u8; 32],
    /// The public key, if the file states it.
    pub(crate) public_key: Option<PublicKey>,
    /// Where in a tree of keys the key comes from; empty if that is not known.
    pub(crate) path: String,
    /// The file's own name for itself.
    pub(crate) uuid: String,
    description: String,
}

impl Keystore {
    /// Reads and checks a file.
    pub(crate) fn parse(bytes: &[u8]) -> eyre::Result<Self> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| eyre!("no JSON at line {}, column {}", error.line(), error.column()))?;
        let root = Field { name: String::new(), value: &value };
        root.at("version")?.number(4, 4)?;
        let crypto = root.at("crypto")?;
        let (kdf, checksum, cipher) = (crypto.at("kdf")?, crypto.at("checksum")?, crypto.at("cipher")?);
        let message = kdf.at("message")?;
        ensure!(message.text()?.is_empty(), "{} must be empty", message.name);
        for (module, name) in [(&checksum, "sha256"), (&cipher, "aes-128-ctr")] {
            let function = module.at("function")?;
            ensure!(function.text()? == name, "{} must be {name}", function.name);
        }
        let public_key = match root.at("pubkey") {
            Ok(field) => Some(PublicKey(FixedBytes(field.bytes()?))),
            Err(_) => None,
        };
        let description = match root.at("description") {
            Ok(field) => field.text()?.chars().take(DESCRIPTION_CHARACTERS_MAX).collect(),
            Err(_) => String::new(),
        };
        let uuid = root.at("uuid")?;
        ensure!(is_uuid(uuid.text()?), "uuid must be a UUID, such as 64625def-3331-4eea-ab6f-782f3ed16a83");
        let path = root.at("path")?;
        ensure!(is_path(path.text()?), "path must be empty or such as m/12381/3600/0/0/0");
        Ok(Self {
            kdf: Kdf::read(&kdf)?,
            salt: kdf.at("params")?.at("salt")?.some_bytes(SALT_BYTES_MAX)?,
            checksum: checksum.at("message")?.bytes()?,
            iv: cipher.at("params")?.at("iv")?.bytes()?,
            sealed: cipher.at("message")?.bytes()?,
            public_key,
            path: path.text()?.to_owned(),
            uuid: uuid.text()?.to_owned(),
            description,
        })
    }

    /// Puts a key under a password.
    pub(crate) fn seal(
        secret: &[u8; 32],
        public_key: PublicKey,
        password: &Password,
        kdf: Kdf,
        drawn: &Drawn,
    ) -> eyre::Result<Self> {
        let key = kdf.derive(password, &drawn.salt)?;
        let mut sealed = *secret;
        apply_cipher(&key, &drawn.iv, &mut sealed)?;
        Ok(Self {
            kdf,
            salt: drawn.salt.to_vec(),
            checksum: checksum(&key, &sealed),
            iv: drawn.iv,
            sealed,
            public_key: Some(public_key),
            path: String::new(),
            uuid: uuid_of(drawn.uuid),
            description: String::new(),
        })
    }

    /// Takes the key out.
    pub(crate) fn open(&self, password: &Password) -> eyre::Result<SecretKey> {
        let key = self.kdf.derive(password, &self.salt)?;
        let right = checksum(&key, &self.sealed) == self.checksum;
        ensure!(right, "the password is wrong, or crypto.cipher.message is damaged: crypto.checksum differs");
        let mut secret = Zeroizing::new(self.sealed);
        apply_cipher(&key, &self.iv, &mut secret)?;
        let secret = SecretKey::from_bytes(&mut secret)
            .ok_or_else(|| eyre!("crypto.cipher.message holds no secret key of BLS12-381"))?;
        if let Some(stated) = self.public_key {
            let public_key = secret.public_key().0;
            ensure!(stated.0 == public_key, "pubkey is {}, but the key's is {public_key}", stated.0);
        }
        Ok(secret)
    }

    /// The file's text; the same for the same keystore.
    pub(crate) fn text(&self) -> String {
        let mut value = json!({
            "crypto": {
                "kdf": self.kdf.write(&self.salt),
                "checksum": {"function": "sha256", "params": {}, "message": hex::encode(self.checksum)},
                "cipher": {
                    "function": "aes-128-ctr",
                    "params": {"iv": hex::encode(self.iv)},
                    "message": hex::encode(self.sealed),
                },
            },
            "description": self.description,
            "path": self.path,
            "uuid": self.uuid,
            "version": 4,
        });
        if let (Some(key), Some(fields)) = (self.public_key, value.as_object_mut()) {
            fields.insert("pubkey".to_owned(), hex::encode(key.0).into());
        }
        format!("{value:#}\n")
    }
}

/// SHA-256 of the derived key's second half and the sealed secret.
fn checksum(key: &[u8; DERIVED_BYTES], sealed: &[u8; 32]) -> [u8; 32] {
    let (_, half) = key.split_at(16);
    Sha256::new().chain_update(half).chain_update(sealed).finalize().into()
}

/// Seals what is open and opens what is sealed, by the derived key's first half.
fn apply_cipher(key: &[u8; DERIVED_BYTES], iv: &[u8; 16], text: &mut [u8; 32]) -> eyre::Result<()> {
    let (half, _) = key.split_at(16);
    let mut cipher = ctr::Ctr128BE::<aes::Aes128>::new_from_slices(half, iv)?;
    cipher.apply_keystream(text);
    Ok(())
}

/// Source: RFC 9562, version 4.
fn uuid_of(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = hex::encode(bytes);
    for dash in [20, 16, 12, 8] {
        text.insert(dash, '-');
    }
    text
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Source: EIP-2334, and EIP-2335 for the empty path.
fn is_path(text: &str) -> bool {
    let mut steps = text.split('/');
    let is_number = |step: &str| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= PATH_CHARACTERS_MAX && (text.is_empty() || steps.next() == Some("m") && steps.all(is_number))
}

/// A place in the file, with the words that name it.
struct Field<'a> {
    name: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    fn at(&self, key: &str) -> eyre::Result<Self> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        match self.value.get(key) {
            Some(value) => Ok(Self { name, value }),
            None => Err(eyre!("{name} is missing")),
        }
    }

    fn text(&self) -> eyre::Result<&'a str> {
        self.value.as_str().ok_or_else(|| eyre!("{} must be a string", self.name))
    }

    fn number(&self, least: u64, most: u64) -> eyre::Result<u64> {
        let name = &self.name;
        let number = self.value.as_u64().ok_or_else(|| eyre!("{name} must be a whole number"))?;
        ensure!((least..=most).contains(&number), "{name} is {number}: must be {}", range(least, most));
        Ok(number)
    }

    fn bytes<const N: usize>(&self) -> eyre::Result<[u8; N]> {
        let mut bytes = [0; N];
        hex::decode_to_slice(self.text()?, &mut bytes).map_err(|_| eyre!("{} must be {N} bytes in hex", self.name))?;
        Ok(bytes)
    }

    fn some_bytes(&self, most: usize) -> eyre::Result<Vec<u8>> {
        let bytes = hex::decode(self.text()?).ok().filter(|bytes| (1..=most).contains(&bytes.len()));
        bytes.ok_or_else(|| eyre!("{} must be 1 to {most} bytes in hex", self.name))
    }
}

fn range(least: u64, most: u64) -> String {
    if least == most { least.to_string() } else { format!("{least} to {most}") }
}
