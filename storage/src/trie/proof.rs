//! Merkle proofs: the encoded nodes from the root down to a key, or to where it would be.
//!
//! Nodes below 32 bytes travel inside their parent and are not listed. A proof of absence ends with
//! the node that leaves no room for the key. The proof of an empty trie has no nodes.
//!
//! Source: EIP-1186.

use alloy_primitives::Bytes;

use super::{
    encode::{NodeRef, encode_branch, encode_extension, encode_leaf},
    node::{Body, Key, Source, Tree, TrieError, Value},
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
    tree: &Tree<K, V>,
    key: &K,
    source: &dyn Source<K, V>,
) -> Result<(Option<V>, Vec<Bytes>), TrieError> {
    let mut nodes = Vec::new();
    let mut path = Vec::with_capacity(16);
    let mut next = tree.as_ref().map(|root| root.node(source)).transpose()?;
    while let Some(node) = next.take() {
        let mut encoded = Vec::new();
        match node.body() {
            Body::Leaf(found, value) => {
                let begin = encode_leaf(found, value, path.len(), &mut encoded);
                list(&encoded[begin..], &mut nodes);
                return Ok(((found == key).then(|| value.clone()), nodes));
            }
            Body::Branch(branch) => {
                let begin = encode_branch(&branch, &mut encoded);
                let encoded = &encoded[begin..];
                if !branch.prefix.is_empty() {
                    let mut extension = Vec::new();
                    let inner = NodeRef::of(encoded);
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
                next = branch.resolve(nibble, &path, source)?;
            }
        }
    }
    Ok((None, nodes))
}
