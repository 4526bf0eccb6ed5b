//! The few RLP shapes that trie nodes need, written without intermediate buffers.
//!
//! Source: Ethereum Yellow Paper, appendix B (RLP) and appendix C (hex-prefix encoding).

use super::encode::NodeRef;

fn header(out: &mut Vec<u8>, short: u8, payload: usize) {
    let bytes = payload.to_be_bytes();
    if payload < 56 {
        out.push(short.wrapping_add(bytes[bytes.len() - 1]));
        return;
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let count = u8::try_from(bytes.len() - zeros).expect("an integer has at most 8 bytes");
    out.push(short.wrapping_add(55).wrapping_add(count));
    out.extend_from_slice(&bytes[zeros..]);
}

/// Appends a byte string.
pub(crate) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    if let [byte @ 0..0x80] = bytes {
        out.push(*byte);
        return;
    }
    header(out, 0x80, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a big-endian integer, leading zeros trimmed.
pub(crate) fn integer(out: &mut Vec<u8>, big_endian: &[u8]) {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    string(out, &big_endian[zeros..]);
}

/// Wraps everything behind `start` into a list; for the few bytes of an account.
pub(crate) fn close_list(out: &mut Vec<u8>, start: usize) {
    let payload = out.len() - start;
    let mut head = Vec::with_capacity(9);
    header(&mut head, 0xc0, payload);
    out.splice(start..start, head);
}

/// Room in front of a list for its own header.
const LIST_ROOM: usize = 9;

/// Leaves room for the header of a list whose payload is appended next; [`finish_list`] wants what this returns.
pub(crate) fn begin_list(out: &mut Vec<u8>) -> usize {
    let payload_start = out.len() + LIST_ROOM;
    out.resize(payload_start, 0);
    payload_start
}

/// Writes the header of the list whose payload starts there and ends with the buffer; returns where the list begins.
pub(crate) fn finish_list(out: &mut [u8], payload_start: usize) -> usize {
    let payload = out.len() - payload_start;
    let bytes = payload.to_be_bytes();
    if payload < 56 {
        out[payload_start - 1] = 0xc0_u8.wrapping_add(bytes[bytes.len() - 1]);
        return payload_start - 1;
    }
    let count = bytes.len() - bytes.iter().take_while(|byte| **byte == 0).count();
    let begin = payload_start - 1 - count;
    out[begin + 1..payload_start].copy_from_slice(&bytes[bytes.len() - count..]);
    out[begin] = 0xf7_u8.wrapping_add(count.to_be_bytes()[size_of::<usize>() - 1]);
    begin
}

/// Appends nibbles in hex-prefix encoding as a byte string.
pub(crate) fn hex_prefix(out: &mut Vec<u8>, nibbles: impl Iterator<Item = u8>, count: usize, leaf: bool) {
    let flag = if leaf { 0x20 } else { 0 };
    let bytes = count / 2 + 1;
    if bytes > 1 {
        header(out, 0x80, bytes);
    }
    let mut pending = if count % 2 == 1 { Some(flag | 0x10) } else { None };
    if pending.is_none() {
        out.push(flag);
    }
    for nibble in nibbles {
        match pending.take() {
            Some(high) => out.push(high | nibble),
            None => pending = Some(nibble << 4),
        }
    }
}

/// Appends a reference to a child: its hash as a string, or the node itself below 32 bytes.
pub(crate) fn reference(out: &mut Vec<u8>, reference: &NodeRef) {
    if reference.is_hash() {
        out.push(0xa0);
    }
    out.extend_from_slice(reference.bytes());
}

#[cfg(test)]
mod tests {
    use alloy_rlp::Encodable;

    #[test]
    fn strings_of_every_length_match_alloy() {
        for length in (0..300).chain([65_535, 65_536, 70_000]) {
            for fill in [0u8, 0x7f, 0x80, 0xff] {
                let bytes = vec![fill; length];
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                super::string(&mut ours, &bytes);
                bytes.as_slice().encode(&mut theirs);
                assert!(ours == theirs, "{length} bytes of {fill}");
            }
        }
    }
}
