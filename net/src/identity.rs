//! The key by which the network knows a node: Ed25519, made from a seed of 32 bytes.
//!
//! Source: RFC 8032, section 5.1.5.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Bytes of a public key, and of a seed.
pub use engine::genesis::IDENTITY_BYTES;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why a seed gives no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seed of the identity gives no Ed25519 key")]
pub struct IdentityError;

/// A node's identity. It cannot be copied or printed; its memory is wiped when it is dropped.
pub struct NodeKey {
    seed: Zeroizing<[u8; IDENTITY_BYTES]>,
    pair: Ed25519KeyPair,
}

impl NodeKey {
    /// The key of a seed. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`IdentityError`]; no seed of this length is known to give one.
    pub fn from_seed(seed: &[u8; IDENTITY_BYTES]) -> Result<Self, IdentityError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| IdentityError)?;
        Ok(Self { seed: Zeroizing::new(*seed), pair })
    }

    /// What others know the node by.
    #[must_use]
    pub fn public_key(&self) -> [u8; IDENTITY_BYTES] {
        let mut public = [0; IDENTITY_BYTES];
        for (to, from) in public.iter_mut().zip(self.pair.public_key().as_ref()) {
            *to = *from;
        }
        public
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut signature = [0; SIGNATURE_BYTES];
        for (to, from) in signature.iter_mut().zip(self.pair.sign(message).as_ref()) {
            *to = *from;
        }
        signature
    }

    /// The secret itself, for whoever makes a certificate of it.
    #[must_use]
    pub fn seed(&self) -> &[u8; IDENTITY_BYTES] {
        &self.seed
    }
}

/// Whether the holder of this key signed the message.
#[must_use]
pub fn verify(key: &[u8; IDENTITY_BYTES], message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    /// Source: RFC 8032, section 7.1, tests 1 to 3.
    #[test]
    fn a_seed_gives_the_public_key_of_the_standard() {
        for (seed, public) in [
            (
                hex!("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
                hex!("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
            ),
            (
                hex!("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
                hex!("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
            ),
            (
                hex!("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"),
                hex!("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"),
            ),
        ] {
            let key = NodeKey::from_seed(&seed).unwrap();
            assert_eq!(key.public_key(), public);
            assert_eq!(*key.seed(), seed);
        }
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        let (key, other) = (NodeKey::from_seed(&[7; 32]).unwrap(), NodeKey::from_seed(&[8; 32]).unwrap());
        let signature = key.sign(b"word");
        assert!(verify(&key.public_key(), b"word", &signature));
        assert!(!verify(&key.public_key(), b"work", &signature));
        assert!(!verify(&other.public_key(), b"word", &signature));
        assert!(!verify(&[0xff; 32], b"word", &signature));
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = NodeKey::from_seed(&[7; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "NodeKey");
    }
}
