//! The part of a trie that lies under a prefix: where it hangs, and whether rows make it.

use alloy_primitives::B256;

use super::{
    node::{Body, Branch, Child, Key as _, Source, Tree, TrieError, Value},
    record,
    stream::{Records, Stream},
};

/// A node with its position.
type Placed<V> = (Vec<u8>, Child<B256, V>);

/// The node that holds every key under `prefix`, with its position; `None` where there can be no such key.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
fn at<V: Value>(
    tree: &Tree<B256, V>,
    prefix: &[u8],
    source: &dyn Source<B256, V>,
) -> Result<Option<Placed<V>>, TrieError> {
    let mut path: Vec<u8> = Vec::with_capacity(64);
    let mut next = tree.as_ref().map(|root| root.child());
    while let Some(child) = next.take() {
        let Some(rest) = prefix.get(path.len()..).filter(|rest| !rest.is_empty()) else {
            return Ok(Some((path, child)));
        };
        match child.node(&path, source)?.body() {
            Body::Leaf(key, _) => {
                let is_under = prefix.iter().enumerate().all(|(index, nibble)| key.nibble(index) == *nibble);
                return Ok(is_under.then_some((path, child)));
            }
            Body::Branch(branch) => {
                let common = rest.iter().zip(&*branch.prefix).take_while(|(left, right)| left == right).count();
                if common == rest.len() {
                    return Ok(Some((path, child)));
                }
                if common < branch.prefix.len() {
                    return Ok(None);
                }
                path.extend_from_slice(&branch.prefix);
                path.push(rest[common]);
                next = branch.child(rest[common]);
            }
        }
    }
    Ok(None)
}

/// A record that rows call for: its position, and its bytes.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

struct Found(Vec<Record>);

impl<V> Records<V> for Found {
    type Error = std::convert::Infallible;

    fn record(&mut self, position: &[u8], branch: &Branch<'_, B256, V>) -> Result<(), Self::Error> {
        self.0.push((position.to_vec(), record::encode(branch)));
        Ok(())
    }
}

/// The records of the branches that `rows` make, all rows there are under `prefix`, in order of key; `None` if they
/// make another part than the trie has there.
///
/// # Errors
/// [`TrieError`] when a node above them cannot be resolved.
pub(crate) fn records<V: Value>(
    tree: &Tree<B256, V>,
    prefix: &[u8],
    rows: &[(B256, V)],
    source: &dyn Source<B256, V>,
) -> Result<Option<Vec<Record>>, TrieError> {
    let Some((position, child)) = at(tree, prefix, source)? else {
        return Ok(rows.is_empty().then(Vec::new));
    };
    let (mut stream, mut found) = (Stream::below(position.len()), Found(Vec::new()));
    let pushed = rows.iter().try_for_each(|(key, value)| stream.push(*key, value.clone(), &mut found));
    let Ok(reference) = pushed.and_then(|()| stream.reference(&mut found));
    let is_it = reference.is_some_and(|reference| reference.root_hash() == child.reference.root_hash());
    Ok(is_it.then_some(found.0))
}
