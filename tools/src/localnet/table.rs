//! One line for each node of a local network.

use std::fmt::Write as _;

/// What a person sees of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) height: Option<u64>,
    pub(super) slot: Option<u64>,
    /// Milliseconds.
    pub(super) finality_p50: Option<f64>,
    /// Milliseconds.
    pub(super) finality_p99: Option<f64>,
    /// Transactions per second.
    pub(super) rate: Option<f64>,
    pub(super) peers: Option<u64>,
    pub(super) pid: Option<u32>,
}

const HEAD: [&str; 10] = ["", "node", "state", "height", "slot", "final p50", "p99 ms", "tx/s", "peers", "pid"];

/// The table with its head, a line each, each ended.
pub(super) fn text(rows: &[Row]) -> String {
    let mut cells = vec![HEAD.map(str::to_owned)];
    cells.extend(rows.iter().enumerate().map(|(number, row)| row.cells(number)));
    let mut widths = [0; HEAD.len()];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for line in &cells {
        let mut shown = String::new();
        for ((column, cell), width) in line.iter().enumerate().zip(widths) {
            // Words begin under each other, numbers end under each other.
            let _ = match column {
                1 | 2 => write!(shown, "  {cell:<width$}"),
                _ => write!(shown, "  {cell:>width$}"),
            };
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

impl Row {
    fn cells(&self, number: usize) -> [String; HEAD.len()] {
        let whole = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let rounded = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
        [
            number.to_string(),
            self.name.clone(),
            self.state.to_owned(),
            whole(self.height),
            whole(self.slot),
            rounded(self.finality_p50),
            rounded(self.finality_p99),
            rounded(self.rate),
            whole(self.peers),
            whole(self.pid.map(u64::from)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [
            Row {
                name: "validator-0".to_owned(),
                state: "up",
                height: Some(1_234),
                slot: Some(1_240),
                finality_p50: Some(61.4),
                finality_p99: Some(120.0),
                rate: Some(1_999.6),
                peers: Some(3),
                pid: Some(4_711),
            },
            Row { name: "follower-1".to_owned(), state: "down", ..Row::default() },
        ];
        assert_eq!(
            text(&rows),
            "     node         state  height  slot  final p50  p99 ms  tx/s  peers   pid\n\
             \x20 0  validator-0  up       1234  1240         61     120  2000      3  4711\n\
             \x20 1  follower-1   down        -     -          -       -     -      -     -\n"
        );
    }
}
