//! How fast a block can be on some cores if nothing is lost: what measured speed is held against.
//!
//! A core that is free takes the lowest transaction whose dependencies are done; nothing is executed twice and
//! nothing but transactions takes time. This is the schedule of an executor that knows all conflicts.

/// The time that `cores` need for transactions of these times, where `dependencies[i]` lists those that must be
/// done before transaction i begins, all of them below i; in the unit of `times`.
#[must_use]
pub fn makespan(times: &[f64], dependencies: &[Vec<usize>], cores: usize) -> f64 {
    let mut ends: Vec<Option<f64>> = vec![None; times.len()];
    let mut free = vec![0.0_f64; cores.max(1)];
    let mut waiting: Vec<usize> = (0..times.len()).collect();
    while !waiting.is_empty() {
        let Some(core) = (0..free.len()).min_by(|a, b| free[*a].total_cmp(&free[*b])) else { break };
        // When each one could begin on this core; what depends on one that has not begun cannot be said yet.
        let begins = |at: usize| {
            let ready = dependencies.get(at).into_iter().flatten().map(|before| ends[*before]);
            ready.chain([Some(free[core])]).try_fold(0.0_f64, |latest, end| Some(latest.max(end?)))
        };
        let begun = waiting.iter().enumerate().filter_map(|(place, at)| Some((place, *at, begins(*at)?)));
        // The earliest, and of several the lowest.
        let Some((place, at, begin)) = begun.min_by(|a, b| a.2.total_cmp(&b.2).then(a.1.cmp(&b.1))) else { break };
        ends[at] = Some(begin + times[at]);
        free[core] = begin + times[at];
        waiting.remove(place);
    }
    ends.into_iter().flatten().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::makespan;

    #[test]
    fn independent_transactions_share_the_cores() {
        let none = vec![Vec::new(); 4];
        assert_eq!(makespan(&[1.0; 4], &none, 2), 2.0);
        assert_eq!(makespan(&[1.0; 4], &none, 8), 1.0);
        assert_eq!(makespan(&[3.0, 1.0, 1.0, 1.0], &none, 2), 3.0);
        assert_eq!(makespan(&[], &[], 2), 0.0);
    }

    #[test]
    fn a_chain_takes_its_whole_length_on_any_number_of_cores() {
        let chain: Vec<Vec<usize>> = (0..4_usize).map(|at| at.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(makespan(&[1.0; 4], &chain, 8), 4.0);
    }

    #[test]
    fn two_chains_run_side_by_side() {
        let chains: Vec<Vec<usize>> = (0..6_usize).map(|at| at.checked_sub(2).into_iter().collect()).collect();
        assert_eq!(makespan(&[1.0; 6], &chains, 2), 3.0);
        assert_eq!(makespan(&[1.0; 6], &chains, 1), 6.0);
    }
}
