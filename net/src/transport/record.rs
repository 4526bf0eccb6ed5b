//! Node records: who a node is, where it can be reached, and which validator speaks through it.
//!
//! ```text
//! record [version, chain id, genesis, identity, sequence, [address, ..], [validator, its signature] or [], signature]
//! ```
//!
//! RLP; addresses are text such as `203.0.113.7:30303`. The identity signs everything before its signature (Ed25519,
//! after the words `sluice node record`), so a record may be passed on by anybody. The validator's key signs the
//! identity alone ([`Kind::Identity`]): it is bound to one key of the transport, wherever that is.
//!
//! What a record says of a validator counts only if its key is in the set that the reader trusts.

use std::net::SocketAddr;

use alloy_primitives::{B256, FixedBytes};
use alloy_rlp::{Decodable, Encodable, Error, Header, Result};
use engine::{
    crypto::Committee,
    ordering::event::Identity,
    types::{Domain, Epoch, PublicKey, Signature, Slot, ValidatorSet, vote::Kind},
};

use crate::identity::{self, NodeKey};

/// Addresses in one record.
pub(crate) const ADDRESSES_MAX: usize = 4;

/// Bytes of one record: four addresses of IPv6, a validator, all signatures.
pub(crate) const RECORD_BYTES_MAX: usize = 640;

/// The form that this program writes.
const VERSION: u8 = 1;

/// What the identity signs begins with this.
const PREFIX: &[u8] = b"sluice node record";

/// An Ed25519 public key, by which nodes tell each other apart.
pub type NodeId = FixedBytes<32>;

/// A node's own word on who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Chain id.
    pub chain_id: u64,
    /// Id of block 0's consensus header.
    pub genesis: B256,
    /// Its key on the transport.
    pub identity: NodeId,
    /// Milliseconds since 1970 at which it started; a newer record replaces an older one.
    pub sequence: u64,
    /// Where it can be reached; none if it does not say.
    pub addresses: Vec<SocketAddr>,
    /// The validator behind it, and that validator's signature over the identity.
    pub validator: Option<(PublicKey, Signature)>,
    signature: FixedBytes<64>,
}

/// Why a record is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is of another chain.
    #[error("a node of another chain")]
    OtherChain,
    /// It speaks for another identity than the connection's.
    #[error("a record of another identity")]
    OtherIdentity,
    /// The identity did not sign it.
    #[error("a record with a wrong signature")]
    Signature,
    /// The validator did not sign the identity.
    #[error("a record with a validator's wrong signature")]
    Validator,
}

/// What a validator signs to be found behind an identity.
fn binding(domain: &Domain, identity: &NodeId) -> B256 {
    domain.hash(Kind::Identity, Epoch(0), Slot(0), B256::from(identity.0))
}

impl NodeRecord {
    /// Signs a record of this node.
    #[must_use]
    pub fn sign(
        domain: &Domain,
        key: &NodeKey,
        sequence: u64,
        addresses: Vec<SocketAddr>,
        validator: Option<&Identity>,
    ) -> Self {
        let identity = NodeId::from(key.public_key());
        let binding = binding(domain, &identity);
        let validator = validator.map(|validator| (validator.public_key, validator.signer.sign(binding)));
        let (chain_id, genesis) = (domain.chain_id, domain.genesis);
        let signature = FixedBytes::ZERO;
        let mut record = Self { chain_id, genesis, identity, sequence, addresses, validator, signature };
        record.addresses.truncate(ADDRESSES_MAX);
        record.signature = FixedBytes(key.sign(&record.signed_bytes()));
        record
    }

    /// Checks a record, and says which validator of the set is behind it.
    ///
    /// # Errors
    /// [`RecordError`]. A validator of another set is no error; it is nobody here.
    pub fn check(
        &self,
        domain: &Domain,
        set: &ValidatorSet,
        committee: &dyn Committee,
    ) -> std::result::Result<Option<PublicKey>, RecordError> {
        if self.chain_id != domain.chain_id || self.genesis != domain.genesis {
            return Err(RecordError::OtherChain);
        }
        if !identity::verify(&self.identity.0, &self.signed_bytes(), &self.signature.0) {
            return Err(RecordError::Signature);
        }
        let Some((key, signature)) = &self.validator else { return Ok(None) };
        let Some(index) = set.index_of(key) else { return Ok(None) };
        if committee.verify(index, binding(domain, &self.identity), signature) {
            Ok(Some(*key))
        } else {
            Err(RecordError::Validator)
        }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = PREFIX.to_vec();
        self.fields(&mut bytes);
        bytes
    }

    /// Everything but the signature, without a head.
    fn fields(&self, out: &mut Vec<u8>) {
        VERSION.encode(out);
        self.chain_id.encode(out);
        self.genesis.encode(out);
        self.identity.encode(out);
        self.sequence.encode(out);
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.encode(out);
        let payload_length =
            self.validator.map_or(0, |(key, signature)| key.length().saturating_add(signature.length()));
        Header { list: true, payload_length }.encode(out);
        if let Some((key, signature)) = &self.validator {
            key.encode(out);
            signature.encode(out);
        }
    }

    /// Its encoding.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(RECORD_BYTES_MAX);
        self.fields(&mut payload);
        self.signature.encode(&mut payload);
        let mut out = Vec::with_capacity(payload.len().saturating_add(4));
        Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(&payload);
        out
    }

    /// Decodes what [`Self::encoded`] made from the front of `bytes`.
    ///
    /// # Errors
    /// Whatever does not decode, is too long, or has more in it than it should.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        if rest.len() > RECORD_BYTES_MAX {
            return Err(Error::Custom("a node record is longer than any may be"));
        }
        if u8::decode(&mut rest)? != VERSION {
            return Err(Error::Custom("a node record of a version that is not known here"));
        }
        let (chain_id, genesis) = (u64::decode(&mut rest)?, B256::decode(&mut rest)?);
        let (identity, sequence) = (NodeId::decode(&mut rest)?, u64::decode(&mut rest)?);
        let mut listed = Header::decode_bytes(&mut rest, true)?;
        let mut addresses = Vec::new();
        while !listed.is_empty() {
            if addresses.len() == ADDRESSES_MAX {
                return Err(Error::Custom("a node record with too many addresses"));
            }
            let text = Header::decode_bytes(&mut listed, false)?;
            let address = std::str::from_utf8(text).ok().and_then(|text| text.parse::<SocketAddr>().ok());
            let address = address.filter(|address| address.to_string().as_bytes() == text);
            addresses.push(address.ok_or(Error::Custom("a node record with an address that is none"))?);
        }
        let mut named = Header::decode_bytes(&mut rest, true)?;
        let validator = if named.is_empty() {
            None
        } else {
            Some((PublicKey::decode(&mut named)?, Signature::decode(&mut named)?))
        };
        let signature = FixedBytes::decode(&mut rest)?;
        if !named.is_empty() || !rest.is_empty() {
            return Err(Error::UnexpectedLength);
        }
        Ok(Self { chain_id, genesis, identity, sequence, addresses, validator, signature })
    }
}
