//! How far a piece of work is: a bar on a terminal, nothing elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};
use storage::offline::Progress;

/// The bar of what is being done, if somebody looks.
pub(super) struct Bar {
    is_seen: bool,
    shown: Option<(&'static str, ProgressBar)>,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self { is_seen: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, Progress { what, done, all }: Progress) {
        if !self.is_seen {
            return;
        }
        if self.shown.as_ref().is_none_or(|(shown, _)| *shown != what) {
            self.end();
            let bar = ProgressBar::new(all).with_prefix(what);
            let style = ProgressStyle::with_template("{prefix:14} {bar:40} {pos}/{len} {per_sec} eta {eta}");
            self.shown = Some((what, style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set_length(all);
            bar.set_position(done);
        }
    }

    fn end(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}
