//! The program as it is typed: what it takes, and how it says no.

use std::process::{Command, Output};

fn sluice(line: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice")).args(line).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_command_that_the_help_names_has_a_help_of_its_own() {
    let help = sluice(&["--help"]);
    assert!(help.status.success());
    let listed = text(&help.stdout);
    let (_, commands) = listed.split_once("Commands:\n").expect("a list of commands");
    let named = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let named: Vec<&str> = named.collect();
    assert!(named.contains(&"node") && named.contains(&"localnet"), "{named:?}");
    for command in named {
        let help = sluice(&["help", command]);
        assert!(help.status.success(), "{command}");
        assert!(text(&help.stdout).contains("Usage: sluice"), "{command}");
    }
}

#[test]
fn what_is_not_known_is_named_on_the_way_out() {
    for line in [&["fly"][..], &["node", "--colour", "red"], &["keys", "new", "--count", "many"]] {
        let refused = sluice(line);
        assert_eq!(refused.status.code(), Some(2), "{line:?}");
        let said = text(&refused.stderr);
        assert!(said.contains(line.last().expect("a word")) || said.contains(line[1]), "{line:?}: {said}");
        assert!(refused.stdout.is_empty(), "{line:?}");
    }
}
