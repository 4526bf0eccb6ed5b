//! Exports and imports that are cut at every named point.

use super::*;
use crate::{
    OpenError,
    failpoint::{Action, FailPoints, PORTABLE_FAIL_POINTS},
    portable::import::import_with,
};

/// Imports until a point is hit for the so-manieth time.
fn cut(kit: &Kit, config: &Config, point: &str) -> Result<Imported, PortableError> {
    let fail = FailPoints::parse(Some(point), Action::Fail).expect("a point");
    let newest = kit.foundation.blocks.last().expect("a block");
    import_with(config, (&kit.chain, &kit.source, &kit.foundation), newest, &fail, 2, &|_| ())
}

#[test]
fn an_import_goes_on_wherever_it_was_cut_and_reads_no_chunk_twice() {
    let kit = Kit::new(11, 1_500);
    let count = kit.source.manifest.chunks.len();
    let chunks = (2..=count).step_by(count / 3).map(|at| format!("import.chunk:{at}"));
    let points =
        PORTABLE_FAIL_POINTS.iter().filter(|point| point.starts_with("import.")).map(|point| (*point).to_owned());
    for point in points.chain(chunks).chain(["genesis.rows".to_owned()]) {
        let settings = kit.folder(&point);
        let refused = cut(&kit, &settings, &point).expect_err("it was cut");
        assert!(refused.to_string().contains("fail point"), "{point}: {refused}");
        let opened = open_on(&FaultyDisk::default(), settings.clone(), &kit.chain);
        assert!(matches!(opened, Err(OpenError::Unfinished(_))), "{point}: half a state is opened");
        // What was done is gone from the snapshot: nobody asks for it.
        let done = match point.split_once(':') {
            Some((_, at)) => at.parse().expect("a number"),
            None if point == "import.begun" => 0,
            None if point == "import.chunk" => 1,
            None => count,
        };
        let hidden: Vec<(PathBuf, Vec<u8>)> = kit.source.manifest.chunks[..done]
            .iter()
            .map(|chunk| kit.source.dir.join(&chunk.file))
            .map(|path| (path.clone(), std::fs::read(&path).expect("it is there")))
            .collect();
        hidden.iter().for_each(|(path, _)| std::fs::remove_file(path).expect("it goes"));
        let imported = kit.import(&settings).expect("it goes on");
        assert_eq!((imported.resumed, imported.chunks), (done as u64, (count - done) as u64), "{point}");
        hidden.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).expect("it is back"));
        check_state(&kit.open(settings), &kit.state);
    }
}

#[test]
fn an_import_that_is_cut_again_and_again_ends() {
    let kit = Kit::new(12, 1_500);
    let settings = kit.folder("b");
    let mut cuts = 0;
    // Each time it comes two chunks further.
    while let Err(error) = cut(&kit, &settings, "import.chunk:2") {
        assert!(error.to_string().contains("fail point"), "{error}");
        cuts += 1;
    }
    assert_eq!(cuts, kit.source.manifest.chunks.len() / 2);
    check_state(&kit.open(settings), &kit.state);
}

#[test]
fn an_export_that_was_cut_is_no_snapshot() {
    for point in ["export.chunk:1", "export.chunk:5", "export.manifest"] {
        let home = tempfile::tempdir().expect("a folder");
        let (settings, to) =
            (Config { fail_point: Some(point.to_owned()), ..config(home.path()) }, home.path().join("to"));
        let (store, _) = store(&home.path().join("a"), &chain(13), settings);
        let cut = export(&store, vec![(Height(BLOCKS), json!({}))], &to, 1_500, &|_| ());
        assert!(cut.as_ref().is_err_and(|error| error.to_string().contains("fail point")), "{cut:?}");
        let refused = Source::open(&to);
        assert!(refused.as_ref().is_err_and(|error| error.to_string().contains(MANIFEST)), "{refused:?}");
        let again = export(&store, vec![(Height(BLOCKS), json!({}))], &to, 1_500, &|_| ());
        assert!(again.as_ref().is_err_and(|error| error.to_string().contains("stopped")), "{again:?}");
    }
}

#[test]
fn folders_that_hold_something_else_are_refused() {
    let (kit, other) = (Kit::new(14, 1_500), Kit::new(14, 3_000));
    let settings = kit.folder("b");
    cut(&kit, &settings, "import.chunk:3").expect_err("it was cut");
    assert_eq!(other.import(&settings), Err(PortableError::OtherImport(settings.dir.clone())));
    kit.import(&settings).expect("it goes on");
    assert_eq!(kit.import(&settings), Err(PortableError::HoldsChain(settings.dir.clone())));
    drop(kit.open(settings.clone()));
    assert_eq!(kit.import(&settings), Err(PortableError::HoldsChain(settings.dir)));
    let running = kit.folder("running");
    let store = kit.open(running.clone());
    let refused = kit.import(&running);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("in use")), "{refused:?}");
    let full = export(&store, vec![(Height(1), json!({}))], &kit.source.dir, 1_500, &|_| ());
    assert!(full.is_err(), "{full:?}");
    let (store, _) = super::store(&kit.home.path().join("c"), &kit.chain, config(kit.home.path()));
    let full = export(&store, vec![(Height(BLOCKS), json!({}))], &kit.source.dir, 1_500, &|_| ());
    assert_eq!(full, Err(PortableError::NotEmpty(kit.source.dir.clone())));
    for bytes in [0, CHUNK_BYTES.start() - 1, CHUNK_BYTES.end() + 1] {
        let refused = export(&store, vec![(Height(BLOCKS), json!({}))], &kit.home.path().join("d"), bytes, &|_| ());
        assert!(matches!(refused, Err(PortableError::Setting(_))), "{refused:?}");
    }
}

#[test]
fn another_chain_and_another_block_are_refused() {
    let (kit, other) = (Kit::new(15, 5_000), Kit::new(16, 5_000));
    let settings = kit.folder("b");
    let refused = import(&settings, &other.chain, &kit.source, &kit.foundation, 2, &|_| ());
    assert!(matches!(refused, Err(PortableError::Foreign { what: "chain digest", .. })), "{refused:?}");
    let refused = import(&settings, &kit.chain, &kit.source, &other.foundation, 2, &|_| ());
    assert!(matches!(refused, Err(PortableError::Foreign { what: "block hash", .. })), "{refused:?}");
    let none = Foundation { blocks: Vec::new(), headers: Vec::new(), epochs: Vec::new() };
    let refused = import(&settings, &kit.chain, &kit.source, &none, 2, &|_| ());
    assert!(matches!(refused, Err(PortableError::Setting(_))), "{refused:?}");
    assert!(!settings.dir.exists(), "nothing was made");
    let mut headers = kit.source.blocks().expect("blocks");
    let newest = &kit.foundation.blocks[0];
    headers.headers.swap(1, 2);
    assert!(headers.check_headers(newest, kit.chain.genesis_hash()).is_err(), "headers in another order");
    headers.headers.swap(1, 2);
    assert_eq!(headers.check_headers(newest, kit.chain.genesis_hash()), Ok(()));
    assert!(headers.check_headers(newest, B256::ZERO).is_err(), "another block 0");
    headers.headers.pop();
    assert!(headers.check_headers(newest, kit.chain.genesis_hash()).is_err(), "a header is missing");
}
