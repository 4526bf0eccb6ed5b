//! What a node that is far behind is given: final blocks above a height, and what makes them final.
//!
//! ```text
//! from | block <- block <- block <- header <- header    of one epoch, lowest first
//!        bodies beside them         no bodies    ^ the Finalization of this one makes all below it final
//! ```
//!
//! Most blocks have a Finalization of their own, or one of a block a few heights above. Where blocks end before it, for
//! lack of room, headers lead up to it; at the end of an epoch these are tail headers.

#[cfg(test)]
mod tests;

use alloy_primitives::B256;

use crate::{
    limits,
    types::{Certificate, Chain, Height, Range, SignedHeader},
};

/// A block of the store, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Shelved<B> {
    /// Its header.
    pub signed: SignedHeader,
    /// A Finalization of it or of a block above it.
    pub certificate: Certificate,
    /// The block.
    pub body: B,
    /// Its size in bytes.
    pub size_bytes: usize,
}

/// What goes into a [`Chain`], as far as it is collected.
struct Links<B> {
    headers: Vec<SignedHeader>,
    bodies: Vec<B>,
    /// What makes the first of them final, and the last of them.
    certificates: Option<(Certificate, Certificate)>,
    /// How many of the headers lead up to one that is certified itself, and by what.
    proven: Option<(usize, Certificate)>,
    /// The block above them is not here.
    is_cut: bool,
}

/// Answers a wish, and returns the bodies that go with the answer.
///
/// `shelved` gives the block at a height up to `newest`, `tail` a tail header by its id. At most
/// [`limits::CHAIN_HEADERS_MAX`] blocks are looked at, and the bodies that are returned have no more bytes than
/// [`limits::LETTER_BYTES_MAX`], or are one. Where blocks were let go of, the answer is that there is nothing, or ends
/// below them.
pub fn chain_above<B>(
    range: &Range,
    newest: Height,
    epoch_heights: u64,
    shelved: &dyn Fn(Height) -> Option<Shelved<B>>,
    tail: &dyn Fn(B256) -> Option<SignedHeader>,
) -> (Chain, Vec<B>) {
    let mut links = collect(range, newest, shelved);
    let lowest = links.certificates.filter(|_| !links.is_cut).map(|(lowest, _)| lowest);
    let is_led_up = lead_up(&mut links, epoch_heights, tail);
    let Some((count, certificate)) = links.proven else {
        let chain = Chain { from: range.from, height: newest, headers: Vec::new(), bodies: 0, certificate: lowest };
        return (chain, Vec::new());
    };
    if !is_led_up {
        links.headers.truncate(count);
        links.bodies.truncate(count);
    }
    let bodies = u64::try_from(links.bodies.len()).unwrap_or(u64::MAX);
    let chain =
        Chain { from: range.from, height: newest, headers: links.headers, bodies, certificate: Some(certificate) };
    (chain, links.bodies)
}

/// Blocks of one epoch as far as there is room, and headers above them up to one that is certified itself.
fn collect<B>(range: &Range, newest: Height, shelved: &dyn Fn(Height) -> Option<Shelved<B>>) -> Links<B> {
    let mut links = Links { headers: Vec::new(), bodies: Vec::new(), certificates: None, proven: None, is_cut: false };
    let (mut bytes, mut is_full) = (0_usize, false);
    let heights = range.from.0.saturating_add(1)..=newest.0;
    for height in heights.take(limits::CHAIN_HEADERS_MAX) {
        let Some(Shelved { signed, certificate, body, size_bytes }) = shelved(Height(height)) else {
            links.is_cut = true;
            break;
        };
        if links.headers.first().is_some_and(|first| first.header.epoch != signed.header.epoch) {
            break;
        }
        let is_own = certificate.statement.id() == Some(signed.header.id());
        links.headers.push(signed);
        let lowest = links.certificates.map_or(certificate, |(lowest, _)| lowest);
        links.certificates = Some((lowest, certificate));
        bytes = bytes.saturating_add(size_bytes);
        let held = u64::try_from(links.bodies.len()).unwrap_or(u64::MAX);
        is_full |= held >= range.count || (bytes > limits::LETTER_BYTES_MAX && held > 0);
        if !is_full {
            links.bodies.push(body);
        }
        if is_own {
            links.proven = Some((links.headers.len(), certificate));
            if is_full {
                break;
            }
        }
    }
    links
}

/// Adds the tail headers that lead from the last height of an epoch up to the one that ended it, if they fit.
fn lead_up<B>(links: &mut Links<B>, epoch_heights: u64, tail: &dyn Fn(B256) -> Option<SignedHeader>) -> bool {
    let (Some(last), Some((_, certificate))) = (links.headers.last(), links.certificates) else { return false };
    if last.header.height.checked_rem(epoch_heights) != Some(0) {
        return false;
    }
    let (id, room) = (last.header.id(), limits::CHAIN_HEADERS_MAX.saturating_sub(links.headers.len()));
    let (mut above, mut next) = (Vec::new(), certificate.statement.id().unwrap_or_default());
    while next != id {
        let Some(header) = tail(next).filter(|_| above.len() < room) else { return false };
        next = header.header.parent_id;
        above.push(header);
    }
    links.headers.extend(above.into_iter().rev());
    links.proven = Some((links.headers.len(), certificate));
    true
}
