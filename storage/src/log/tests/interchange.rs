//! A signing history that is taken to another folder, and what it is refused for.

use std::{path::Path, sync::Arc};

use alloy_primitives::{B256, FixedBytes};
use engine::{
    ordering::journal::Entry,
    ports::Recovered,
    types::{ConsensusHeader, Height, Signature},
};

use super::kit::{FaultyDisk, floor, next, regained, vote};
use crate::{
    disk::Disk,
    log::{
        HistoryError, Imported, folder_in,
        interchange::{export_on, import_on, show_on},
    },
    tests::kit::{World, chain, chain_with, config, open_on},
};

fn proposal(slot: u64) -> Entry {
    let header = ConsensusHeader { chain_id: 1_337, epoch: 1, slot, height: 9, ..ConsensusHeader::default() };
    let (epoch, slot, id) = (header.epoch(), header.slot(), header.id());
    let signature = Signature(FixedBytes::repeat_byte(3));
    Entry::Proposal { epoch, slot, id, header: Box::new(header), signature }
}

/// A folder whose log holds these entries.
fn folder(disk: &FaultyDisk, dir: &Path, entries: &[Entry]) {
    let store = open_on(disk, config(dir), &chain()).unwrap();
    let journal = store.journal();
    journal.append(entries, &[]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    store.close().unwrap();
}

fn signed() -> Vec<Entry> {
    vec![
        vote(1, 3, 0),
        floor(1, 4),
        vote(1, 4, 0),
        proposal(5),
        vote(1, 5, 3),
        vote(1, 6, 4),
        vote(1, 6, 5),
        vote(1, 7, 0),
    ]
}

fn import(disk: &FaultyDisk, dir: &Path, text: &str) -> Result<Imported, HistoryError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    import_on(disk, dir, text)
}

fn recovered(disk: &FaultyDisk, dir: &Path) -> Recovered {
    open_on(disk, config(dir), &chain()).unwrap().take_recovered()
}

fn exported() -> String {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &signed());
    export_on(&disk, dir.path()).unwrap()
}

#[test]
fn a_history_holds_the_floor_and_what_was_signed_above_it_and_its_form_is_pinned() {
    let text = exported();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    let fields = ["chain_digest", "chain_id", "floor", "genesis_hash", "interchange", "proposals", "version", "votes"];
    assert_eq!(names, fields);
    assert_eq!(value["interchange"], "sluice-signing-history");
    assert_eq!((&value["version"], &value["chain_id"]), (&1.into(), &1_337.into()));
    assert_eq!(value["genesis_hash"], chain().genesis_hash().to_string());
    assert_eq!(value["chain_digest"], chain().digest().to_string());
    assert_eq!(value["floor"], serde_json::json!({ "epoch": 1, "slot": 4 }));
    let id = |seed: u64| B256::left_padding_from(&seed.to_be_bytes()).to_string();
    let signature = |seed: u64| format!("0x{:0192x}", seed);
    let vote = |slot: u64, kind: &str, seed: u64| {
        let mut vote = serde_json::json!({
            "epoch": 1, "slot": slot, "kind": kind, "voter": 1, "signature": signature(seed)
        });
        if kind != "skip" {
            vote["id"] = id(seed).into();
        }
        vote
    };
    let votes = [vote(5, "notarize", 3), vote(6, "skip", 4), vote(6, "finalize", 5), vote(7, "notarize", 0)];
    assert_eq!(value["votes"], serde_json::Value::from(votes.to_vec()));
    let proposals = value["proposals"].as_array().unwrap();
    assert_eq!(proposals.len(), 1);
    let Entry::Proposal { id, header, .. } = proposal(5) else { panic!("a proposal") };
    let expected = serde_json::json!({
        "epoch": 1, "slot": 5, "id": id, "header": alloy_primitives::Bytes::from(alloy_rlp::encode(&*header)),
        "signature": format!("0x{}", "03".repeat(96)),
    });
    assert_eq!(proposals[0], expected);
}

#[test]
fn what_was_exported_is_imported_and_bars_everything_up_to_its_highest_slot() {
    let text = exported();
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &[vote(0, 900, 0)]);
    let imported = import(&disk, dir.path(), &text).unwrap();
    let (epoch, slot) = proposal(7).place();
    assert_eq!(imported, Imported { floor: (epoch, slot), proposals: 1, votes: 4 });
    let found = recovered(&disk.crashed(1), dir.path());
    let expected = [vec![vote(0, 900, 0), proposal(5)], signed()[4..].to_vec(), vec![regained(1, 7)]].concat();
    assert_eq!((found.entries, found.is_lost), (expected, false));
    // The same file again is older than what is there, and so is what this folder exports to itself.
    let again = import(&disk, dir.path(), &text).unwrap_err();
    assert!(matches!(again, HistoryError::Older { is_covered: true, .. }), "{again}");
    let onward = export_on(&disk, dir.path()).unwrap();
    assert_eq!(import(&disk, dir.path(), &onward).unwrap(), Imported { floor: (epoch, slot), proposals: 0, votes: 0 });
}

#[test]
fn the_floor_is_that_of_whatever_is_highest_in_the_file_or_in_the_log() {
    let text = exported();
    for (entry, expected) in [(vote(1, 4, 0), (1, 7)), (vote(1, 90, 0), (1, 90)), (proposal(8), (1, 8))] {
        let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
        folder(&disk, dir.path(), &[entry]);
        let Imported { floor: (epoch, slot), .. } = import(&disk, dir.path(), &text).unwrap();
        assert_eq!((epoch.0, slot.0), expected);
        assert!(recovered(&disk, dir.path()).entries.contains(&regained(expected.0, expected.1)));
    }
    // A floor of the log above the file's is no case for an import.
    for (known, is_covered) in [(floor(1, 5), false), (regained(1, 6), false), (floor(1, 7), true), (floor(2, 0), true)]
    {
        let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
        folder(&disk, dir.path(), std::slice::from_ref(&known));
        let error = import(&disk, dir.path(), &text).unwrap_err();
        let HistoryError::Older { known: found, is_covered: covered, .. } = error else { panic!("{error}") };
        assert_eq!((found, covered), (known.place(), is_covered));
        assert_eq!(recovered(&disk, dir.path()).entries, [known]);
    }
}

#[test]
fn a_lost_log_is_not_exported_and_an_import_ends_the_loss() {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    let mut world = World::new(51);
    let store = open_on(&disk, config(dir.path()), &world.chain).unwrap();
    let journal = store.journal();
    journal.append(&[floor(0, 5)], &[]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    world.commit(&store, 3).unwrap();
    store.checkpoint().unwrap();
    world.commit(&store, 2).unwrap();
    crate::tests::model::crash(store);
    let text = export_on(&disk, dir.path()).unwrap();
    for name in disk.names() {
        if name.starts_with(folder_in(dir.path())) {
            disk.forget(&name);
        }
    }
    for _ in 0..2 {
        let error = export_on(&disk, dir.path()).unwrap_err();
        assert!(matches!(error, HistoryError::Lost(_)), "{error}");
        assert!(show_on(&disk, dir.path()).unwrap().iter().any(|line| line.starts_with("lost        ")));
        assert!(recovered(&disk, dir.path()).is_lost);
    }
    // The chain itself tells that everything up to its tip was signed.
    let older = text.replace("\"slot\": 5", "\"slot\": 4");
    let error = import(&disk, dir.path(), &older).unwrap_err();
    assert!(matches!(error, HistoryError::Older { known: (_, slot), is_covered: true, .. } if slot.0 == 5), "{error}");
    assert_eq!(world.tip(), Height(5));
    import(&disk, dir.path(), &text).unwrap();
    let found = recovered(&disk.crashed(3), dir.path());
    assert_eq!((found.entries, found.is_lost), (vec![regained(0, 5)], false));
    export_on(&disk, dir.path()).unwrap();
}

#[test]
fn a_crash_at_any_operation_of_an_import_leaves_the_log_as_it_was_or_all_of_it() {
    let text = exported();
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &[vote(0, 900, 0)]);
    let lost = disk.fork();
    lost.names().iter().filter(|name| name.starts_with(folder_in(dir.path()))).for_each(|name| lost.forget(name));
    for (disk, before) in [(disk, vec![vote(0, 900, 0)]), (lost, vec![])] {
        for count in 0..14 {
            let during = disk.fork();
            during.stop_after(count);
            let outcome = import(&during, dir.path(), &text);
            during.works_again();
            for cut in 0..4 {
                let found = recovered(&during.crashed(cut), dir.path());
                let is_there = found.entries.contains(&regained(1, 7));
                assert!(is_there || outcome.is_err(), "operation {count}, cut {cut}");
                let expected = if is_there { before.len() + 6 } else { before.len() };
                assert_eq!((found.entries.len(), found.is_lost), (expected, !is_there && before.is_empty()));
            }
        }
    }
}

fn refusal(text: &str) -> HistoryError {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &[floor(0, 1)]);
    let before: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
    let error = import(&disk, dir.path(), text).unwrap_err();
    assert_eq!(disk.names().iter().map(|name| disk.bytes(name)).collect::<Vec<_>>(), before, "nothing was touched");
    error
}

#[test]
fn files_of_another_chain_version_or_form_are_refused_with_what_is_wrong() {
    let text = exported();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        refusal(&text.replacen(from, to, 1)).to_string()
    };
    let hash = chain().genesis_hash().to_string();
    let digest = chain().digest().to_string();
    let other = B256::repeat_byte(9).to_string();
    let Entry::Proposal { id, .. } = proposal(5) else { panic!("a proposal") };
    for (from, to, words) in [
        ("signing-history", "signing-future", "this is sluice-signing-future version 1"),
        ("\"version\": 1", "\"version\": 2", "only sluice-signing-history version 1 is read"),
        ("\"version\": 1", "\"version\": \"1\"", "cannot be read: invalid type: string"),
        ("\"version\": 1", "\"version\": 1, \"more\": 1", "unknown field `more`"),
        ("\"epoch\": 1", "\"epoch\": 1, \"root\": 1", "unknown field `root`"),
        ("\"chain_id\": 1337", "\"chain_id\": 1338", "chain_id is 1338 in the signing history, and 1337 in the folder"),
        (hash.as_str(), other.as_str(), "genesis_hash is 0x0909"),
        (digest.as_str(), other.as_str(), "chain_digest is 0x0909"),
        (hash.as_str(), "0x12", "cannot be read"),
        ("\"slot\": 4", "\"slot\": -4", "cannot be read: invalid value: integer `-4`"),
        ("\"floor\"", "\"roof\"", "unknown field `roof`"),
        ("\"skip\"", "\"abstain\"", "unknown variant `abstain`"),
        ("\"skip\"", "\"notarize\"", "vote 1 of the signing history: it names no block"),
        ("\"notarize\"", "\"skip\"", "vote 0 of the signing history: a skip names no block"),
        ("\"slot\": 5", "\"slot\": 6", "proposal 0 of the signing history: its header is of epoch 1, slot 5, not 1, 6"),
        (id.to_string().as_str(), other.as_str(), "proposal 0 of the signing history: its header has id"),
        ("\"header\": \"0xf9", "\"header\": \"0xf8", "proposal 0 of the signing history: its header does not decode"),
        ("\"voter\": 1", "\"voter\": 65536", "cannot be read: invalid value"),
    ] {
        let error = changed(from, to);
        assert!(error.contains(words), "{from} as {to}: {error}");
    }
    assert!(matches!(refusal(""), HistoryError::Unreadable(_)));
    assert!(matches!(refusal(&text[..text.len() / 2]), HistoryError::Unreadable(_)));
    assert!(matches!(refusal(&format!("{text}{text}")), HistoryError::Unreadable(_)));
    let empty = |floor: &str| {
        let front = "\"interchange\": \"sluice-signing-history\", \"version\": 1, \"chain_id\": 1337";
        let lists = "\"proposals\": [], \"votes\": []";
        format!("{{{front}, \"genesis_hash\": \"{hash}\", \"chain_digest\": \"{digest}\", {floor} {lists}}}")
    };
    assert!(refusal(&empty("")).to_string().contains("missing field `floor`"));
    assert!(matches!(refusal(&empty("\"floor\": null,")), HistoryError::Older { floor: None, .. }));
    // Where nothing is known, nothing becomes a floor.
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    open_on(&disk, config(dir.path()), &chain()).unwrap().close().unwrap();
    assert_eq!(import(&disk, dir.path(), &empty("\"floor\": null,")).unwrap_err(), HistoryError::Empty);
    let text = export_on(&disk, dir.path()).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["floor"], serde_json::Value::Null);
}

#[test]
fn a_header_of_another_chain_is_no_proposal_of_this_one() {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    let header = ConsensusHeader { chain_id: 5, epoch: 1, slot: 5, ..ConsensusHeader::default() };
    let (epoch, slot, id) = (header.epoch(), header.slot(), header.id());
    let signature = Signature::default();
    folder(&disk, dir.path(), &[Entry::Proposal { epoch, slot, id, header: Box::new(header), signature }]);
    let text = export_on(&disk, dir.path()).unwrap();
    assert!(refusal(&text).to_string().contains("its header is of chain 5, not 1337"));
}

#[test]
fn damaged_histories_never_panic_and_never_lower_the_floor() {
    let text = exported();
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &[floor(1, 3), vote(1, 6, 0)]);
    let (mut random, mut taken) = (7, 0);
    for _ in 0..600 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + next(&mut random) % 3 {
            let at = next(&mut random) as usize % bytes.len();
            let with = b"0123456789abcdef\"{}[],: x"[next(&mut random) as usize % 25];
            match next(&mut random) % 3 {
                0 => bytes[at] = with,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, with),
            }
        }
        let disk = disk.fork();
        let Ok(Imported { floor: (epoch, slot), .. }) = import(&disk, dir.path(), std::str::from_utf8(&bytes).unwrap())
        else {
            continue;
        };
        taken += 1;
        assert!((epoch.0, slot.0) >= (1, 6));
    }
    assert!((20..500).contains(&taken), "{taken} were taken");
}

#[test]
fn folders_in_use_and_folders_of_nothing_are_refused() {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    let error = export_on(&disk, dir.path()).unwrap_err();
    assert_eq!(error, HistoryError::NoFolder(dir.path().to_owned()));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was made");
    let store = open_on(&disk, config(dir.path()), &chain()).unwrap();
    for error in [
        export_on(&disk, dir.path()).unwrap_err(),
        show_on(&disk, dir.path()).unwrap_err(),
        import(&disk, dir.path(), &exported()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("is in use by another process"), "{error}");
    }
    store.close().unwrap();
    // The other chain has other accounts.
    let other = tempfile::tempdir().unwrap();
    open_on(&disk, config(other.path()), &chain_with(Default::default())).unwrap().close().unwrap();
    let error = import(&disk, other.path(), &exported()).unwrap_err();
    assert!(matches!(error, HistoryError::WrongChain { field: "genesis_hash", .. }), "{error}");
}

#[test]
fn a_log_is_shown_line_by_line() {
    let (disk, dir) = (FaultyDisk::default(), tempfile::tempdir().unwrap());
    folder(&disk, dir.path(), &signed());
    let lines = show_on(&disk, dir.path()).unwrap();
    let has = |words: &str| assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:#?}");
    has("chain       1337, genesis 0x");
    // The first of the file, what was signed, and the last word of a store that was closed.
    has("records     3, the last one 3");
    has("floor       epoch 1, slot 4");
    has("lost        no");
    has("proposal    epoch 1, slot 5: 0x");
    has("vote        epoch 1, slot 6: skip by 1");
    assert_eq!(lines.len(), 6 + signed().len());
}
