//! What a validator signed leaves a data folder and comes into another one by the command line, or says why not.

use std::{path::Path, process::Command};

use tests::node::{Node, binary};

/// Runs `sluice log`, and gives what it printed, or how it failed.
fn log(args: &[&str], folder: &Path) -> Result<String, String> {
    let output = Command::new(binary()).arg("log").args(args).arg("--datadir").arg(folder).output().expect("it runs");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(out) } else { Err(format!("{}: {err}", output.status)) }
}

#[test]
fn a_signing_history_goes_from_folder_to_folder_and_never_back() {
    let home = tempfile::tempdir().expect("a folder");
    let [one, two] = ["one", "two"].map(|name| home.path().join(name));
    let mut node = Node::dev(&one, &[]);
    let busy = log(&["show"], &one).expect_err("a node uses it");
    assert!(busy.contains("is in use by another process"), "{busy}");
    assert!(node.stop().success());
    assert!(Node::dev(&two, &[]).stop().success());

    let shown = log(&["show"], &one).expect("it is shown");
    assert!(shown.contains("lost        no"), "{shown}");
    let text = log(&["export"], &one).expect("it is exported");
    let file = home.path().join("history.json");
    let name = file.to_str().expect("a plain name");
    log(&["export", "--out", name], &one).expect("it is written");
    assert_eq!(std::fs::read_to_string(&file).expect("it is there"), text);
    let refused = log(&["export", "--out", name], &one).expect_err("a history is not overwritten");
    assert!(refused.contains("File exists"), "{refused}");

    let raised = |slot: u64| {
        let mut history: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        history["floor"] = serde_json::json!({ "epoch": 0, "slot": slot });
        std::fs::write(&file, history.to_string()).expect("it is written");
        log(&["import", name], &two)
    };
    raised(900_000).expect("a higher floor");
    assert!(log(&["show"], &two).expect("it is shown").contains("regained    epoch 0, slot 900000"));
    let older = raised(899_999).expect_err("a lower floor");
    assert!(older.contains("it is older than the folder"), "{older}");
    std::fs::remove_dir_all(two.join("log")).expect("it is there");
    let lost = log(&["export"], &two).expect_err("it is gone");
    assert!(lost.contains("the log is lost"), "{lost}");
    raised(900_000).expect("the operator's word");
    assert!(log(&["show"], &two).expect("it is shown").contains("lost        no"));
}
