//! Snapshots that were tampered with: by somebody who changes files, and by somebody who changes the manifest as well.

use super::*;
use crate::portable::{Failure, manifest::ChunkEntry, verify::verify as check_all};

impl Kit {
    fn path(&self, index: usize) -> PathBuf {
        self.source.dir.join(&self.source.manifest.chunks[index].file)
    }

    fn bytes(&self, index: usize) -> Vec<u8> {
        std::fs::read(self.path(index)).expect("it is there")
    }

    /// The one file that is refused, and why.
    fn refused(&self, source: &Source, what: &str) -> Failure {
        let failures = check_all(source, 2, &|_| ());
        assert_eq!(failures.len(), 1, "{what}: {failures:?}");
        failures.into_iter().next().expect("there is one")
    }

    /// The same of an import, which leaves nothing that opens.
    fn not_imported(&self, source: &Source, what: &str) -> Failure {
        let failure = self.refused(source, what);
        let settings = self.folder("refused");
        let imported = import(&settings, &self.chain, source, &self.foundation, 2, &|_| ());
        assert_eq!(imported, Err(PortableError::File(failure.clone())), "{what}");
        assert!(open_on(&FaultyDisk::default(), settings.clone(), &self.chain).is_err(), "{what}: it opens");
        std::fs::remove_dir_all(&settings.dir).expect("it goes");
        failure
    }

    /// A manifest that names other bytes of a chunk, which are written.
    fn lie(&self, index: usize, bytes: &[u8]) -> Source {
        std::fs::write(self.path(index), bytes).expect("written");
        let mut source = self.source.clone();
        let entry = &mut source.manifest.chunks[index];
        (entry.bytes, entry.sha256) = (bytes.len() as u64, B256::new(Sha256::digest(bytes).into()));
        source
    }

    fn restore(&self, index: usize, bytes: &[u8]) {
        std::fs::write(self.path(index), bytes).expect("written");
    }

    fn decoded(&self, index: usize) -> Chunk {
        Chunk::decode(&self.bytes(index)).expect("it decodes")
    }

    /// Chunks with accounts, and with slots.
    fn of_kind(&self, is_slots: bool) -> usize {
        let is_it = |chunk: &ChunkEntry| chunk.part.owner.is_some() == is_slots && chunk.part.rows > 2;
        self.source.manifest.chunks.iter().position(is_it).expect("there is one")
    }
}

#[test]
fn a_changed_file_is_refused_and_named() {
    let kit = Kit::new(21, 2_000);
    let last = kit.source.manifest.chunks.len() - 1;
    for index in [0, kit.of_kind(true), last] {
        let (whole, name) = (kit.bytes(index), kit.source.manifest.chunks[index].file.clone());
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let longer = [&whole[..], &[0]].concat();
        let changes: [(&str, &[u8], &str); 4] = [
            ("a bit", &flipped, "SHA-256"),
            ("it ends too early", &whole[..whole.len() - 1], "bytes, not"),
            ("it goes on", &longer, "more than"),
            ("it is empty", &[], "it has 0 bytes"),
        ];
        for (what, bytes, words) in changes {
            kit.restore(index, bytes);
            let failure = kit.refused(&kit.source, what);
            assert!(failure.file == name && failure.reason.contains(words), "{what}: {failure:?}");
        }
        std::fs::remove_file(kit.path(index)).expect("it goes");
        let failure = kit.not_imported(&kit.source, "it is gone");
        assert!(failure.file == name && failure.reason.contains("cannot be read"), "{failure:?}");
        kit.restore(index, &whole);
    }
    let blocks = kit.source.dir.join("blocks");
    let whole = std::fs::read(&blocks).expect("it is there");
    let mut flipped = whole.clone();
    flipped[200] ^= 1;
    std::fs::write(&blocks, &flipped).expect("written");
    let refused = kit.source.blocks();
    assert!(matches!(&refused, Err(PortableError::File(failure)) if failure.file == "blocks"), "{refused:?}");
    std::fs::write(&blocks, &whole).expect("written");
    // All that is wrong is told, not the first alone.
    let (first, second) = (kit.bytes(0), kit.bytes(last));
    kit.restore(0, &second);
    kit.restore(last, &first);
    let failures = check_all(&kit.source, 2, &|_| ());
    assert_eq!(failures.len(), 2, "{failures:?}");
}

/// Whoever changes the digests along with the bytes is found out by the state root.
#[test]
fn no_changed_byte_of_a_chunk_proves_itself() {
    let kit = Kit::new(22, 2_000);
    let root = kit.source.manifest.state_root;
    for index in [kit.of_kind(false), kit.of_kind(true)] {
        let (whole, entry) = (kit.bytes(index), &kit.source.manifest.chunks[index]);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            // To begin earlier where nothing lies is no lie, and not what the manifest says.
            let checked = Chunk::decode(&bytes).and_then(|chunk| chunk.check(root));
            assert!(!checked.is_ok_and(|checked| checked.part == entry.part), "byte {at} of {}", entry.file);
        }
        for length in 0..whole.len() {
            assert!(Chunk::decode(&whole[..length]).is_err(), "{length} bytes of {}", entry.file);
        }
        let mut bytes = whole.clone();
        bytes[44 + 64] ^= 1;
        kit.not_imported(&kit.lie(index, &bytes), "one byte, with its digest");
        kit.restore(index, &whole);
    }
}

type Change = (&'static str, fn(&mut Chunk));

fn accounts(chunk: &mut Chunk) -> &mut Accounts {
    match &mut chunk.body {
        Body::Accounts(accounts) => accounts,
        Body::Slots(_) => panic!("a chunk of accounts"),
    }
}

fn slots(chunk: &mut Chunk) -> &mut Slots {
    match &mut chunk.body {
        Body::Slots(slots) => slots,
        Body::Accounts(_) => panic!("a chunk of slots"),
    }
}

/// The slots of the first account that has some with it.
fn inner(chunk: &mut Chunk) -> &mut Vec<(B256, U256)> {
    let held = accounts(chunk).rows.iter_mut().find_map(|row| match &mut row.storage {
        Storage::Here(slots) if !slots.is_empty() => Some(slots),
        _ => None,
    });
    held.expect("an account has slots")
}

#[test]
fn every_lie_in_a_chunk_is_refused_though_its_digest_is_right() {
    let kit = Kit::new(23, 4_000);
    let of_accounts: [Change; 20] = [
        ("another state", |chunk| chunk.root.0[0] ^= 1),
        ("another beginning", |chunk| accounts(chunk).from = accounts(chunk).rows[1].key),
        ("without its first row", |chunk| drop(accounts(chunk).rows.remove(0))),
        ("without a row", |chunk| drop(accounts(chunk).rows.remove(1))),
        ("without its last row", |chunk| drop(accounts(chunk).rows.pop())),
        ("a row twice", |chunk| {
            let row = accounts(chunk).rows[1].clone();
            accounts(chunk).rows.insert(1, row);
        }),
        ("rows in another order", |chunk| accounts(chunk).rows.swap(0, 1)),
        ("a row more", |chunk| {
            let mut row = accounts(chunk).rows[1].clone();
            row.key.0[31] ^= 1;
            let at = accounts(chunk).rows.partition_point(|other| other.key < row.key);
            accounts(chunk).rows.insert(at, row);
        }),
        ("another key", |chunk| accounts(chunk).rows[1].key.0[31] ^= 1),
        ("another nonce", |chunk| accounts(chunk).rows[1].account.nonce += 1),
        ("another balance", |chunk| accounts(chunk).rows[1].account.balance += U256::ONE),
        ("another code hash", |chunk| accounts(chunk).rows[1].account.code_hash.0[0] ^= 1),
        ("another slot", |chunk| inner(chunk)[0].1 += U256::ONE),
        ("another key of a slot", |chunk| inner(chunk)[0].0.0[31] ^= 1),
        ("a slot less", |chunk| inner(chunk).truncate(0)),
        ("a slot of zero", |chunk| inner(chunk).push((B256::repeat_byte(0xff), U256::ZERO))),
        ("another code", |chunk| accounts(chunk).codes[0] = Bytes::from_static(b"other")),
        ("a code less", |chunk| drop(accounts(chunk).codes.pop())),
        ("a code more", |chunk| accounts(chunk).codes.push(Bytes::from_static(b"more"))),
        ("without a node", |chunk| drop(accounts(chunk).proof.pop())),
    ];
    let of_slots: [Change; 9] = [
        ("another account", |chunk| slots(chunk).owner.key.0[0] ^= 1),
        ("another balance of the account", |chunk| slots(chunk).owner.account.balance += U256::ONE),
        ("another storage root", |chunk| slots(chunk).owner.storage = Storage::Apart(B256::repeat_byte(1))),
        ("without a node of the account", |chunk| drop(slots(chunk).owner_proof.pop())),
        ("another beginning", |chunk| slots(chunk).from = slots(chunk).rows[1].0),
        ("without a row", |chunk| {
            slots(chunk).rows.remove(1);
        }),
        ("another value", |chunk| slots(chunk).rows[1].1 += U256::ONE),
        ("a slot of zero", |chunk| slots(chunk).rows[1].1 = U256::ZERO),
        ("without a node", |chunk| drop(slots(chunk).proof.pop())),
    ];
    let has_inner = |chunk: &ChunkEntry| chunk.part.owner.is_none() && chunk.part.slots > 0 && chunk.part.rows > 3;
    let with_accounts = kit.source.manifest.chunks.iter().position(has_inner).expect("there is one");
    for (index, changes) in [(with_accounts, &of_accounts[..]), (kit.of_kind(true), &of_slots)] {
        let whole = kit.bytes(index);
        for (what, change) in changes {
            let mut chunk = Chunk::decode(&whole).expect("it decodes");
            change(&mut chunk);
            let failure = kit.refused(&kit.lie(index, &chunk.encode()), what);
            assert_eq!(failure.file, kit.source.manifest.chunks[index].file, "{what}");
        }
        kit.restore(index, &whole);
    }
}

#[test]
fn chunks_in_each_others_places_and_of_other_snapshots_are_refused() {
    let (kit, other) = (Kit::new(24, 2_000), Kit::new(25, 2_000));
    let whole = (kit.bytes(0), kit.bytes(1));
    let mut swapped = kit.lie(0, &whole.1);
    kit.restore(1, &whole.0);
    swapped.manifest.chunks[1].sha256 = kit.source.manifest.chunks[0].sha256;
    swapped.manifest.chunks[1].bytes = kit.source.manifest.chunks[0].bytes;
    let failures = check_all(&swapped, 2, &|_| ());
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.iter().all(|failure| failure.reason.contains("the manifest says")), "{failures:?}");
    kit.restore(1, &whole.1);
    let failure = kit.refused(&kit.lie(0, &other.bytes(0)), "a chunk of another snapshot");
    assert!(failure.reason.contains("of the state with root"), "{failure:?}");
    // And if it says that it is of this one.
    let mut foreign = other.decoded(0);
    foreign.root = kit.source.manifest.state_root;
    let failure = kit.not_imported(&kit.lie(0, &foreign.encode()), "a chunk of another snapshot under this one's root");
    assert!(failure.reason.contains("does not prove itself"), "{failure:?}");
}

/// Names files by their places again.
fn renamed(mut manifest: Manifest) -> Manifest {
    for (index, chunk) in manifest.chunks.iter_mut().enumerate() {
        chunk.file = format!("{index:06}.chunk");
    }
    manifest
}

fn told(manifest: &str) -> String {
    Manifest::parse(manifest.as_bytes()).map_or_else(|error| error.to_string(), |_| "nothing is wrong".to_owned())
}

#[test]
fn a_manifest_with_a_gap_or_an_overlap_is_refused_and_says_where() {
    let kit = Kit::new(26, 2_000);
    let manifest = &kit.source.manifest;
    let count = manifest.chunks.len();
    for index in 0..count {
        let mut without = manifest.clone();
        without.chunks.remove(index);
        let refusal = told(&renamed(without.clone()).to_json());
        assert!(["are missing", "not expected"].iter().any(|words| refusal.contains(words)), "{index}: {refusal}");
        if index + 1 < count {
            let refusal = told(&without.to_json());
            assert!(refusal.contains(&format!("chunk {index} is")), "{index}: {refusal}");
            let mut swapped = manifest.clone();
            swapped.chunks.swap(index, index + 1);
            let refusal = told(&renamed(swapped).to_json());
            assert!(refusal.starts_with(&format!("manifest.json: {index:06}.chunk: ")), "{index}: {refusal}");
        }
        let mut doubled = manifest.clone();
        doubled.chunks.insert(index, manifest.chunks[index].clone());
        let refusal = told(&renamed(doubled).to_json());
        assert!(refusal.starts_with("manifest.json: 0"), "{index}: {refusal}");
    }
}

#[test]
fn a_manifest_with_another_value_is_refused() {
    let kit = Kit::new(27, 2_000);
    let manifest = &kit.source.manifest;
    let (slots, last) = (kit.of_kind(true), manifest.chunks.len() - 1);
    type Edit = (&'static str, fn(&mut serde_json::Value, usize, usize));
    let edits: [Edit; 10] = [
        ("not \"sluice-snapshot\"", |json, _, _| json["format"] = json!("other")),
        ("version 2", |json, _, _| json["version"] = json!(2)),
        ("unknown field", |json, _, _| json["more"] = json!(1)),
        ("unknown field", |json, _, _| json["chunks"][0]["part"]["more"] = json!(1)),
        ("missing field", |json, _, _| drop(json.as_object_mut().expect("an object").remove("height"))),
        ("is final", |json, _, _| json["finality"] = json!([])),
        ("is no file of blocks", |json, _, _| json["blocks"]["file"] = json!("../blocks")),
        ("chunk 0 is", |json, _, _| json["chunks"][0]["file"] = json!("/etc/passwd")),
        ("are missing", |json, _, last| json["chunks"][last]["part"]["ends"] = json!(false)),
        ("does not end", |json, slots, _| json["chunks"][slots]["part"]["from"] = json!(B256::repeat_byte(0xff))),
    ];
    for (words, edit) in edits {
        let mut json = serde_json::to_value(manifest).expect("JSON");
        edit(&mut json, slots, last);
        let refusal = told(&json.to_string());
        assert!(refusal.contains(words), "{words}: {refusal}");
    }
    for text in ["", "{}", "[", "null", "\u{0}"] {
        assert!(told(text).contains("does not decode"), "{text}");
    }
    // Storage that no manifest names is missed when the chunk of its account is read.
    let owner = manifest.chunks[slots].part.owner.expect("slots");
    let mut source = kit.source.clone();
    source.manifest.chunks.retain(|chunk| chunk.part.owner != Some(owner));
    let holder = source.manifest.chunks.iter_mut().find(|chunk| chunk.part.apart.contains(&owner)).expect("an account");
    holder.part.apart.retain(|key| *key != owner);
    let name = holder.file.clone();
    assert_eq!(told(&renamed(source.manifest.clone()).to_json()), "nothing is wrong");
    assert_eq!(kit.not_imported(&source, "without the slots of an account").file, name);
}
