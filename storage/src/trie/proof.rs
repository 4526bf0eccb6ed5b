//! Merkle proofs: the encoded nodes from the root down to a key, or to where it would be.
//!
//! Nodes below 32 bytes travel inside their parent and are not listed. A proof of absence ends with
//! the node that leaves no room for the key. The proof of an empty trie has no nodes.
//!
//! Source: EIP-1186.

use alloy_primitives::Bytes;

use super::{
    encode::{Hasher, NodeRef, encode_branch, encode_extension, encode_leaf},
    node::{Body, Key, Link, Source, TrieError, Value},
};

fn list(encoded: &[u8], nodes: &mut Vec<Bytes>) {
    if nodes.is_empty() || encoded.len() >= 32 {
        nodes.push(Bytes::copy_from_slice(encoded));
    }
}

/// Proves the value of `key`, or that it has none.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn prove<K: Key, V: Value>(
    root: Option<&Link<K, V>>,
    key: &K,
    source: &dyn Source<K, V>,
) -> Result<(Option<V>, Vec<Bytes>), TrieError> {
    let mut hasher = Hasher::default();
    let mut nodes = Vec::new();
    let mut path = Vec::with_capacity(16);
    let mut next = root.cloned();
    while let Some(node) = next.take() {
        let body = node.body(&path, source)?;
        let mut encoded = Vec::new();
        match &*body {
            Body::Leaf { key: found, depth, value } => {
                let begin = encode_leaf((found, *depth), value, &mut hasher, &mut encoded);
                list(&encoded[begin..], &mut nodes);
                return Ok(((found == key).then(|| value.clone()), nodes));
            }
            Body::Branch(branch) => {
                let begin = encode_branch(branch, &mut hasher, &mut encoded);
                let encoded = &encoded[begin..];
                if !branch.prefix.is_empty() {
                    let mut extension = Vec::new();
                    let inner = NodeRef::of(encoded, &mut hasher);
                    let begin = encode_extension(&branch.prefix, &inner, &mut extension);
                    list(&extension[begin..], &mut nodes);
                    let rest = key.nibbles() - path.len();
                    let matches = rest >= branch.prefix.len()
                        && branch.prefix.iter().enumerate().all(|(i, nibble)| key.nibble(path.len() + i) == *nibble);
                    if !matches {
                        return Ok((None, nodes));
                    }
                    path.extend_from_slice(&branch.prefix);
                }
                list(encoded, &mut nodes);
                if path.len() == key.nibbles() {
                    return Ok((branch.value.as_ref().map(|entry| entry.1.clone()), nodes));
                }
                let nibble = key.nibble(path.len());
                path.push(nibble);
                next = branch.children[usize::from(nibble)].clone();
            }
        }
    }
    Ok((None, nodes))
}
