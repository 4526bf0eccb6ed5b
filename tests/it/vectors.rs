//! Ethereum's vectors through the binary; without the fixtures beside the repository there is nothing to run.
//!
//! The large suites are a stage of `.ci/run`; the small one of signatures runs here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use tests::node::binary;

fn fixtures() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let folder = std::env::var("SLUICE_FIXTURES").map_or_else(|_| beside(), PathBuf::from).join("bls");
    folder.is_dir().then_some(folder)
}

fn run(path: &Path) -> Output {
    Command::new(binary()).args(["vectors", "blstest"]).arg(path).output().expect("it runs")
}

fn summary(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("a summary")).expect("JSON")
}

#[test]
fn signatures_are_what_ethereums_vectors_say_and_a_changed_vector_fails() {
    let Some(folder) = fixtures() else {
        println!("skipped: the fixtures are absent");
        return;
    };
    let output = run(&folder);
    let counted = summary(&output);
    assert!(output.status.success() && counted["failed"] == 0 && counted["skipped"] == 0, "{counted}");
    let files = fs::read_to_string(folder.join("MANIFEST.tsv")).expect("a manifest").lines().count() - 1;
    assert_eq!(counted["passed"], files);

    let changed = tempfile::tempdir().expect("a folder");
    for (call, wanted) in [("verify", json!(true)), ("sign", json!("0x00")), ("aggregate", json!(null))] {
        let into = changed.path().join(call);
        fs::create_dir(&into).expect("a new folder");
        let files =
            fs::read_dir(folder.join(call)).expect("the call has a folder").map(|file| file.expect("a file").path());
        let cases = files.map(|file| (fs::read(&file).expect("readable"), file));
        let cases = cases.map(|(text, file)| (serde_json::from_slice::<Value>(&text).expect("JSON"), file));
        let (mut case, file) = cases.into_iter().find(|(case, _)| case["output"] != wanted).expect("another answer");
        case["output"] = wanted;
        fs::write(into.join(file.file_name().expect("a name")), case.to_string()).expect("written");
    }
    let output = run(changed.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(summary(&output), json!({"summary": true, "passed": 0, "failed": 3, "skipped": 0}));
}
