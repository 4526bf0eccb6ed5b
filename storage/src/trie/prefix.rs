//! The part of a trie that lies under a prefix: where it hangs, and whether rows make it.

use super::{
    encode::Hasher,
    node::{Body, Key, Link, Source, TrieError, Value},
    record, update,
};

/// A node with its position.
type Placed<K, V> = (Vec<u8>, Link<K, V>);

/// The node that holds every key under `prefix`, with its position; `None` where there can be no such key.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
fn at<K: Key, V: Value>(
    root: Option<&Link<K, V>>,
    prefix: &[u8],
    source: &dyn Source<K, V>,
) -> Result<Option<Placed<K, V>>, TrieError> {
    let mut path: Vec<u8> = Vec::with_capacity(64);
    let mut next = root.cloned();
    while let Some(node) = next.take() {
        let Some(rest) = prefix.get(path.len()..).filter(|rest| !rest.is_empty()) else {
            return Ok(Some((path, node)));
        };
        let body = node.body(&path, source)?;
        match &*body {
            Body::Leaf { key, .. } => {
                let is_under = prefix.iter().enumerate().all(|(index, nibble)| key.nibble(index) == *nibble);
                return Ok(is_under.then_some((path, node)));
            }
            Body::Branch(branch) => {
                let common = rest.iter().zip(&branch.prefix).take_while(|(left, right)| left == right).count();
                if common == rest.len() {
                    return Ok(Some((path, node)));
                }
                if common < branch.prefix.len() {
                    return Ok(None);
                }
                path.extend_from_slice(&branch.prefix);
                path.push(rest[common]);
                next = branch.children[usize::from(rest[common])].clone();
            }
        }
    }
    Ok(None)
}

/// A record that rows call for: its position, and its bytes.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// The records of the branches that `rows` make, all rows there are under `prefix`; `None` if they make another part
/// than the trie has there.
///
/// # Errors
/// [`TrieError`] when a node above them cannot be resolved.
pub(crate) fn records<K: Key, V: Value>(
    root: Option<&Link<K, V>>,
    prefix: &[u8],
    rows: &[(K, V)],
    source: &dyn Source<K, V>,
) -> Result<Option<Vec<Record>>, TrieError> {
    let Some((position, node)) = at(root, prefix, source)? else {
        return Ok(rows.is_empty().then(Vec::new));
    };
    let entries: Vec<(&K, &V)> = rows.iter().map(|(key, value)| (key, value)).collect();
    let mut hasher = Hasher::default();
    let Some(built) = update::build(position.len(), &entries) else { return Ok(None) };
    if built.reference(&mut hasher).root_hash() != node.reference(&mut hasher).root_hash() {
        return Ok(None);
    }
    let mut found = Vec::new();
    collect(&built, position, &mut found);
    Ok(Some(found))
}

fn collect<K: Key, V: Value>(node: &Link<K, V>, position: Vec<u8>, found: &mut Vec<Record>) {
    let body = node.resident().expect("a node that was just built is in memory");
    let Body::Branch(branch) = &*body else { return };
    for (nibble, child) in (0..).zip(&branch.children) {
        let Some(child) = child else { continue };
        collect(child, [&position, &branch.prefix[..], &[nibble]].concat(), found);
    }
    found.push((position, record::encode(branch)));
}
