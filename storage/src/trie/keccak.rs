//! keccak256 of many messages: eight at a time where the processor has AVX-512, else one by one.
//!
//! Messages are written one behind the other into one buffer, each padded to whole blocks, so that eight of them can
//! go through the permutation side by side, one in each 64-bit lane of a register. Which way is taken is found out
//! when the program runs; both give the same bits.
//!
//! Source: FIPS 202 (the permutation), and the padding of the original Keccak, 0x01, that Ethereum keeps.

use alloy_primitives::{B256, keccak256};

/// Bytes absorbed at a time.
const RATE: usize = 136;
/// Messages hashed side by side.
const LANES: usize = 8;

/// Messages that wait to be hashed.
#[derive(Default)]
pub(crate) struct Batch {
    /// Padded messages, each behind what its encoder left in front of it.
    buffer: Vec<u8>,
    /// First byte and length of each.
    messages: Vec<(usize, usize)>,
}

impl Batch {
    /// Where an encoder appends the next message; [`Self::seal`] says what it was.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Takes everything from `begin` on as a message.
    pub(crate) fn seal(&mut self, begin: usize) {
        let length = self.buffer.len() - begin;
        self.messages.push((begin, length));
        let padded = (length / RATE + 1) * RATE;
        self.buffer.resize(begin + padded, 0);
        self.buffer[begin + length] |= 0x01;
        self.buffer[begin + padded - 1] |= 0x80;
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, message: &[u8]) {
        let begin = self.buffer.len();
        self.buffer.extend_from_slice(message);
        self.seal(begin);
    }

    /// Number of messages.
    pub(crate) const fn len(&self) -> usize {
        self.messages.len()
    }

    /// Hashes all messages, in order, and empties the batch.
    pub(crate) fn hash(&mut self) -> Vec<B256> {
        let mut hashes = vec![B256::ZERO; self.messages.len()];
        if !wide::hash(&self.buffer, &self.messages, &mut hashes) {
            for ((begin, length), hash) in self.messages.iter().zip(&mut hashes) {
                *hash = keccak256(&self.buffer[*begin..begin + length]);
            }
        }
        self.buffer.clear();
        self.messages.clear();
        hashes
    }
}

#[cfg(target_arch = "x86_64")]
mod wide {
    #![expect(unsafe_code, reason = "a function for AVX-512 is called where AVX-512 was found")]

    use std::arch::x86_64::{
        __m512i, _mm256_extract_epi64, _mm512_extracti64x4_epi64, _mm512_rol_epi64, _mm512_rolv_epi64,
        _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
    };

    use alloy_primitives::B256;

    use super::{LANES, RATE};

    /// Fewer messages are faster one by one.
    const MESSAGES_MIN: usize = 2;

    const ROUNDS: [u64; 24] = [
        0x0000_0000_0000_0001,
        0x0000_0000_0000_8082,
        0x8000_0000_0000_808a,
        0x8000_0000_8000_8000,
        0x0000_0000_0000_808b,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8009,
        0x0000_0000_0000_008a,
        0x0000_0000_0000_0088,
        0x0000_0000_8000_8009,
        0x0000_0000_8000_000a,
        0x0000_0000_8000_808b,
        0x8000_0000_0000_008b,
        0x8000_0000_0000_8089,
        0x8000_0000_0000_8003,
        0x8000_0000_0000_8002,
        0x8000_0000_0000_0080,
        0x0000_0000_0000_800a,
        0x8000_0000_8000_000a,
        0x8000_0000_8000_8081,
        0x8000_0000_0000_8080,
        0x0000_0000_8000_0001,
        0x8000_0000_8000_8008,
    ];

    /// By how many bits the lane at x + 5y turns.
    const TURNS: [i64; 25] =
        [0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14];

    /// Hashes messages that are padded in `buffer`; `false` if this processor has no such registers.
    pub(super) fn hash(buffer: &[u8], messages: &[(usize, usize)], hashes: &mut [B256]) -> bool {
        if messages.len() < MESSAGES_MIN || !is_x86_feature_detected!("avx512f") {
            return false;
        }
        let blocks = |message: usize| messages[message].1 / RATE + 1;
        let mut order: Vec<usize> = (0..messages.len()).collect();
        // Messages of one length side by side leave no lane idle.
        order.sort_unstable_by_key(|message| blocks(*message));
        for group in order.chunks(LANES) {
            let mut lanes: [&[u8]; LANES] = [&[]; LANES];
            for (lane, message) in lanes.iter_mut().zip(group) {
                let begin = messages[*message].0;
                *lane = &buffer[begin..begin + blocks(*message) * RATE];
            }
            // SAFETY: the processor has AVX-512F, which is all that the function needs.
            let found = unsafe { hash_lanes(&lanes) };
            for (message, hash) in group.iter().zip(found) {
                hashes[*message] = hash;
            }
        }
        true
    }

    #[target_feature(enable = "avx512f")]
    fn hash_lanes(lanes: &[&[u8]; LANES]) -> [B256; LANES] {
        let mut state = [_mm512_setzero_si512(); 25];
        let mut hashes = [B256::ZERO; LANES];
        let blocks = lanes.iter().map(|lane| lane.len() / RATE).max().unwrap_or_default();
        for block in 0..blocks {
            // A lane whose message has ended takes zeros; its hash is out already.
            let parts = lanes.map(|lane| words(lane.get(block * RATE..).unwrap_or_default()));
            for (word, target) in state.iter_mut().take(RATE / 8).enumerate() {
                let [a, b, c, d, e, f, g, h] =
                    parts.map(|part| part.get(word).map_or(0, |word| i64::from_le_bytes(*word)));
                *target = _mm512_xor_si512(*target, _mm512_set_epi64(h, g, f, e, d, c, b, a));
            }
            permute(&mut state);
            for (lane, hash) in hashes.iter_mut().enumerate() {
                if lanes[lane].len() == (block + 1) * RATE {
                    *hash = squeeze(&state, lane);
                }
            }
        }
        hashes
    }

    fn words(bytes: &[u8]) -> &[[u8; 8]] {
        bytes.as_chunks().0
    }

    #[target_feature(enable = "avx512f")]
    fn squeeze(state: &[__m512i; 25], lane: usize) -> B256 {
        let mut hash = B256::ZERO;
        for (bytes, words) in hash.0.as_chunks_mut::<8>().0.iter_mut().zip(state) {
            let half =
                if lane < 4 { _mm512_extracti64x4_epi64::<0>(*words) } else { _mm512_extracti64x4_epi64::<1>(*words) };
            let word = match lane % 4 {
                0 => _mm256_extract_epi64::<0>(half),
                1 => _mm256_extract_epi64::<1>(half),
                2 => _mm256_extract_epi64::<2>(half),
                _ => _mm256_extract_epi64::<3>(half),
            };
            *bytes = word.to_le_bytes();
        }
        hash
    }

    /// Keccak-f of 1,600 bits, on eight states.
    #[target_feature(enable = "avx512f")]
    fn permute(a: &mut [__m512i; 25]) {
        const XOR: i32 = 0x96;
        const CHI: i32 = 0xd2;
        for round in ROUNDS {
            let (mut columns, mut mixed) = ([_mm512_setzero_si512(); 5], [_mm512_setzero_si512(); 5]);
            let mut b = [_mm512_setzero_si512(); 25];
            for x in 0..5 {
                let upper = _mm512_ternarylogic_epi64::<XOR>(a[x], a[x + 5], a[x + 10]);
                columns[x] = _mm512_ternarylogic_epi64::<XOR>(upper, a[x + 15], a[x + 20]);
            }
            for x in 0..5 {
                mixed[x] = _mm512_xor_si512(columns[(x + 4) % 5], _mm512_rol_epi64::<1>(columns[(x + 1) % 5]));
            }
            for y in 0..5 {
                for x in 0..5 {
                    let turned = _mm512_xor_si512(a[x + 5 * y], mixed[x]);
                    b[y + 5 * ((2 * x + 3 * y) % 5)] = _mm512_rolv_epi64(turned, _mm512_set1_epi64(TURNS[x + 5 * y]));
                }
            }
            for y in 0..5 {
                for x in 0..5 {
                    let row = 5 * y;
                    a[row + x] =
                        _mm512_ternarylogic_epi64::<CHI>(b[row + x], b[row + (x + 1) % 5], b[row + (x + 2) % 5]);
                }
            }
            a[0] = _mm512_xor_si512(a[0], _mm512_set1_epi64(round.cast_signed()));
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod wide {
    use alloy_primitives::B256;

    /// There are no such registers.
    pub(super) const fn hash(_: &[u8], _: &[(usize, usize)], _: &mut [B256]) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::Batch;
    use crate::disk::faulty::next;

    #[test]
    fn batches_of_any_size_and_lengths_hash_as_one_by_one() {
        let mut random = 3;
        let mut batch = Batch::default();
        for count in 0..70 {
            let messages: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    let length = next(&mut random) % if count % 3 == 0 { 900 } else { 140 };
                    (0..length).map(|_| next(&mut random).to_le_bytes()[0]).collect()
                })
                .collect();
            messages.iter().for_each(|message| batch.push(message));
            let expected: Vec<_> = messages.iter().map(keccak256).collect();
            assert_eq!(batch.hash(), expected, "{count} messages");
        }
        for length in 0..600 {
            let message = vec![0xa5; length];
            (0..9).for_each(|_| batch.push(&message));
            assert!(batch.hash().iter().all(|hash| *hash == keccak256(&message)), "{length} bytes");
        }
    }
}
