//! The house rules that no lint knows: arrows, doors, file heads, line length, function length.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Longest line of source, in characters.
const LINE_MAX: usize = 120;

/// Longest function, in lines from its head to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Longest file outside tests, in lines.
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// Names of the packages that a manifest depends on, for tests as well if `with_tests`.
fn dependencies(room: &str, with_tests: bool) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).expect("every room has a manifest");
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            let section = line.trim_matches(['[', ']']).rsplit('.').next().unwrap_or_default();
            inside = section == "dependencies"
                || section == "build-dependencies"
                || (with_tests && section == "dev-dependencies");
        } else if inside
            && let Some(name) = line.split(['=', '.', ' ']).next()
            && !name.is_empty()
            && !name.starts_with('#')
        {
            names.insert(name.to_owned());
        }
    }
    names
}

const ROOMS: [&str; 7] = ["engine", "vm", "storage", "net", "tools", "bench", "tests"];

#[test]
fn arrows_point_at_the_rules() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("engine", &[][..]),
        ("vm", &["engine"][..]),
        ("storage", &["engine"][..]),
        ("net", &["engine"][..]),
        ("tools", &["engine", "vm", "storage", "net", "bench"][..]),
        ("bench", &["engine", "vm", "storage", "net"][..]),
        ("tests", &["engine", "vm", "storage", "net", "bench"][..]),
    ]);
    for room in ROOMS {
        for dependency in dependencies(room, true) {
            if ROOMS.contains(&dependency.as_str()) {
                assert!(allowed[room].contains(&dependency.as_str()), "{room} must not depend on {dependency}");
            }
        }
    }
}

#[test]
fn every_outside_package_has_one_door() {
    let doors: [(&str, &[&str]); 24] = [
        ("mdbx", &["storage"]),
        ("blst", &["engine"]),
        ("quinn", &["net"]),
        ("rustls", &["net"]),
        ("jsonrpsee", &["net"]),
        ("tokio", &["net", "tools", "tests"]),
        ("crossbeam", &["engine", "vm", "storage"]),
        ("dashmap", &["engine", "vm", "storage"]),
        ("num-bigint", &["vm"]),
        ("revm", &["vm"]),
        ("revm-inspectors", &["vm"]),
        ("clap", &["tools", "tests"]),
        ("eyre", &["tools"]),
        ("metrics-exporter-prometheus", &["tools"]),
        ("criterion", &["bench"]),
        ("tower", &["net"]),
        ("tower-http", &["net"]),
        ("quinn-proto", &["net"]),
        ("aws-lc-rs", &["net"]),
        ("aes", &["tools"]),
        ("ctr", &["tools"]),
        ("pbkdf2", &["tools"]),
        ("scrypt", &["tools"]),
        ("unicode-normalization", &["tools"]),
    ];
    for (package, rooms) in doors {
        for room in ROOMS {
            // What a room's own tests use comes in by no door of the node.
            let uses = dependencies(room, false).contains(package);
            assert!(!uses || rooms.contains(&room), "{package} belongs to {rooms:?}, not to {room}");
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", "node_modules", ".build"].iter().any(|skipped| name == *skipped) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for room in ROOMS {
        sources(&root().join(room), &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            (name, fs::read_to_string(&path).expect("a source file is text"))
        })
        .collect()
}

#[test]
fn every_file_opens_with_what_it_promises() {
    for (name, text) in all_sources() {
        let head = text.lines().next().unwrap_or_default();
        assert!(head.starts_with("//! ") || head.starts_with("#!["), "{name} has no head");
    }
}

#[test]
fn lines_are_ascii_and_fit() {
    for (name, text) in all_sources() {
        for (number, line) in (1..).zip(text.lines()) {
            // Strings and rows of tables cannot be broken.
            let data = line.contains("hex!(") || line.contains('"') || line.contains("//! |");
            assert!(line.len() <= LINE_MAX || data, "{name}:{number} has {} characters", line.len());
            assert!(line.is_ascii() || data, "{name}:{number} is not ASCII");
            assert!(!line.ends_with(' '), "{name}:{number} ends in a space");
        }
    }
}

#[test]
fn files_are_about_one_thing() {
    for (name, text) in all_sources() {
        let lines = text.lines().count();
        let test = name.contains("tests");
        assert!(test || lines <= FILE_LINES_MAX, "{name} has {lines} lines: which two things does it do?");
    }
}

/// Every function with its length: from the line of its head to the brace that closes it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
        if code.split(' ').find(|word| !words.contains(word)) != Some("fn") {
            continue;
        }
        let indent = line.len() - code.len();
        let closes = |candidate: &str| candidate.trim_end() == format!("{}}}", " ".repeat(indent));
        if let Some(length) = lines[start..].iter().position(|candidate| closes(candidate)) {
            found.push((code.split('(').next().unwrap_or(code).to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn functions_fit_a_screen() {
    let mut long = Vec::new();
    for (name, text) in all_sources() {
        for (function, length) in functions(&text) {
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{name}: {function} has {length} lines"));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore"), concat!("for", " now")];
    for (name, text) in all_sources() {
        for (number, line) in (1..).zip(text.lines()) {
            for mark in marks {
                assert!(!line.contains(mark), "{name}:{number} says {mark}");
            }
        }
    }
}
