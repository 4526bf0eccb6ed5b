//! What rounds of a measurement come to.

/// Median, least and most.
///
/// # Panics
/// For no values at all.
#[must_use]
pub fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}
