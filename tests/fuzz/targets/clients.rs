//! Any bytes of a client, or of a node for a client: pieces are the same however they are cut, and what decodes is the
//! same once encoded again.

#![no_main]

use engine::limits::TRANSACTION_BYTES_MAX;
use libfuzzer_sys::fuzz_target;
use net::ingress::wire::{Cutter, EVENT_BYTES_MAX, Event, LENGTH_BYTES, Question, put};

/// The pieces of a stream that arrives in chunks, up to the first length that none may have.
fn pieces(bytes: &[u8], chunk: usize) -> (Vec<Vec<u8>>, Option<usize>) {
    let (mut cutter, mut found) = (Cutter::new(TRANSACTION_BYTES_MAX), Vec::new());
    for mut arrived in bytes.chunks(chunk) {
        loop {
            match cutter.next(&mut arrived) {
                Ok(Some(piece)) => found.push(piece.to_vec()),
                Ok(None) => break,
                Err(length) => return (found, Some(length)),
            }
        }
        assert!(arrived.is_empty(), "all is taken");
    }
    (found, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => {
            let whole = pieces(rest, rest.len().max(1));
            assert_eq!(pieces(rest, usize::from(choice / 3) + 1), whole);
            let mut again = Vec::new();
            whole.0.iter().for_each(|piece| put(&mut again, piece));
            assert!(rest.starts_with(&again), "nothing is lost");
        }
        1 => {
            if let Ok(Some(event)) = Event::decode(rest) {
                let mut encoded = Vec::new();
                event.encode(&mut encoded);
                let (mut cutter, mut arrived) = (Cutter::new(EVENT_BYTES_MAX), &encoded[..]);
                let piece = cutter.next(&mut arrived).expect("a length").expect("it is whole");
                assert_eq!(Event::decode(&piece), Ok(Some(event)));
                assert_eq!(encoded.len(), LENGTH_BYTES + piece.len());
            }
        }
        _ => {
            if let Ok(question) = Question::decode(rest) {
                assert_eq!(Question::decode(&question.encode()), Ok(question));
            }
        }
    }
});
