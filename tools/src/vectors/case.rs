//! The result of one case, and its line in the report.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use serde_json::{Map, Value, json};

/// What a check of one case comes to: what we got and what was wanted, or why it cannot be judged.
pub(crate) type Verdict = eyre::Result<Judged>;

/// Values side by side; equal means passed.
pub(crate) struct Judged {
    /// What this chain's code gave.
    pub(crate) got: Value,
    /// What the vector wants.
    pub(crate) want: Value,
    /// Whether they agree.
    pub(crate) pass: bool,
}

impl Judged {
    /// Passed if both are the same.
    pub(crate) fn equal(got: Value, want: Value) -> Self {
        Self { pass: got == want, got, want }
    }
}

/// One judged case.
#[derive(Debug)]
pub(crate) struct Case {
    name: String,
    fork: Option<String>,
    index: usize,
    /// Whether it gave what was wanted.
    pub(crate) pass: bool,
    /// Why it was not run.
    pub(crate) skip: Option<String>,
    got: Value,
    want: Value,
    milliseconds: f64,
    /// Further fields of the line, which replace those of the same name.
    more: Map<String, Value>,
}

impl Case {
    /// Runs a check under the clock. An error or a panic is a failure with its reason in `got`.
    pub(crate) fn judge(name: &str, fork: Option<&str>, index: usize, check: impl FnOnce() -> Verdict) -> Self {
        let started = Instant::now();
        let verdict = catch_unwind(AssertUnwindSafe(check));
        let milliseconds = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        let judged = match verdict {
            Ok(Ok(judged)) => judged,
            Ok(Err(error)) => Judged { got: json!({"error": format!("{error:#}")}), want: Value::Null, pass: false },
            Err(panic) => Judged { got: json!({"panic": panic_text(&*panic)}), want: Value::Null, pass: false },
        };
        let (name, fork) = (name.to_owned(), fork.map(str::to_owned));
        let Judged { got, want, pass } = judged;
        Self { name, fork, index, pass, skip: None, got, want, milliseconds, more: Map::new() }
    }

    /// The same case with further fields in its line.
    pub(crate) fn with(self, more: Map<String, Value>) -> Self {
        Self { more, ..self }
    }

    /// A case that is not run.
    pub(crate) fn skipped(name: &str, fork: Option<&str>, index: usize, reason: String) -> Self {
        let (name, fork) = (name.to_owned(), fork.map(str::to_owned));
        let (got, want) = (json!({}), json!({}));
        Self { name, fork, index, pass: false, skip: Some(reason), got, want, milliseconds: 0.0, more: Map::new() }
    }

    /// A further field of the line.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.more.get(name)
    }

    /// The line of the report.
    pub(crate) fn line(&self, suite: &str, file: &str) -> Value {
        let mut line = json!({
            "suite": suite,
            "file": file,
            "name": self.name,
            "fork": self.fork,
            "index": self.index,
            "pass": self.pass,
            "skip": self.skip,
            "got": self.got,
            "want": self.want,
            "ms": self.milliseconds,
        });
        for (name, value) in &self.more {
            line[name] = value.clone();
        }
        line
    }
}

/// Runs what splits a vector into cases; if that itself panics, the vector is one failed case.
pub(crate) fn guarded(name: &str, run: impl FnOnce() -> Vec<Case>) -> Vec<Case> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let reason = panic_text(&*panic);
        vec![Case::judge(name, None, 0, || Err(eyre::eyre!("panic: {reason}")))]
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
