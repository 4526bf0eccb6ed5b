//! Which files to run: those named, and the JSON files below the folders named.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// A file with vectors.
pub(crate) struct Input {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether it was named itself, not found in a folder.
    pub(crate) named: bool,
}

/// Something named that cannot be read, and why.
#[derive(Debug)]
pub(crate) struct Unreadable {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.reason)
    }
}

impl Unreadable {
    pub(crate) fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl Input {
    /// The named cases of the file.
    pub(crate) fn read(&self) -> Result<Map<String, Value>, Unreadable> {
        let bytes = fs::read(&self.path).map_err(|error| Unreadable::new(&self.path, error))?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(cases)) => Ok(cases),
            Ok(_) => Err(Unreadable::new(&self.path, "not a JSON object of named cases")),
            Err(error) => Err(Unreadable::new(&self.path, error)),
        }
    }
}

/// All files, those of one folder in order of their names; beside them what cannot be opened.
///
/// In a folder only `*.json` counts: manifests and notes are passed over.
pub(crate) fn find(paths: &[PathBuf]) -> (Vec<Input>, Vec<Unreadable>) {
    let (mut inputs, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        match fs::metadata(path) {
            Ok(data) if data.is_dir() => walk(path, &mut inputs, &mut unreadable),
            Ok(_) => inputs.push(Input { path: path.clone(), named: true }),
            Err(error) => unreadable.push(Unreadable::new(path, error)),
        }
    }
    (inputs, unreadable)
}

fn walk(folder: &Path, inputs: &mut Vec<Input>, unreadable: &mut Vec<Unreadable>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return unreadable.push(Unreadable::new(folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => paths.push(entry.path()),
            Err(error) => unreadable.push(Unreadable::new(folder, error)),
        }
    }
    paths.sort();
    for path in paths {
        if path.is_dir() {
            walk(&path, inputs, unreadable);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            inputs.push(Input { path, named: false });
        }
    }
}
