//! Finds the wrong shares of a sum that does not hold, by asking whether parts of it hold.
//!
//! Questions asked: 1 if nothing is wrong, at most ceil(log2 n) + 2 if one share is, and 2n + log2 n whatever is wrong.

/// Places of the wrong ones among `count` shares, in rising order.
///
/// `holds` says whether the shares at these places, never none, sum up to what they should. What is right and what
/// holds may be added to one another and holds again; hence one wrong share makes every sum with it wrong, unless
/// another wrong share makes up for it.
pub(super) fn wrong(count: usize, mut holds: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut wrong = Vec::new();
    let mut unknown: Vec<usize> = (0..count).collect();
    let mut asked = 0_usize;
    let mut ask = |places: &[usize]| {
        asked = asked.saturating_add(1);
        (holds(places), asked)
    };
    while !unknown.is_empty() {
        let (fine, asked) = ask(&unknown);
        if fine {
            break;
        }
        if asked > count {
            // So many are wrong that searching costs more than asking for each.
            wrong.extend(unknown.iter().filter(|place| !ask(&[**place]).0));
            break;
        }
        // A wrong one is among the suspects; of the rest nothing is known.
        let (mut suspects, mut rest) = (&unknown[..], Vec::new());
        while suspects.len() > 1 {
            let (left, right) = suspects.split_at(suspects.len() / 2);
            if ask(left).0 {
                suspects = right;
            } else {
                rest.extend_from_slice(right);
                suspects = left;
            }
        }
        wrong.extend_from_slice(suspects);
        unknown = rest;
    }
    wrong.sort_unstable();
    wrong
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// What is found where these places are off by these amounts, and how many questions it took.
    fn found(count: usize, off: &[(usize, i64)]) -> (Vec<usize>, usize) {
        let mut asked = 0;
        let error = |place: usize| off.iter().filter(|(at, _)| *at == place).map(|(_, by)| by).sum::<i64>();
        let wrong = super::wrong(count, |places| {
            assert!(!places.is_empty());
            asked += 1;
            places.iter().map(|place| error(*place)).sum::<i64>() == 0
        });
        (wrong, asked)
    }

    #[test]
    fn one_wrong_share_costs_a_logarithm_wherever_it_is() {
        assert_eq!(found(0, &[]), (vec![], 0));
        for (count, at_most) in [(1, 1), (2, 4), (3, 4), (128, 9), (200, 10), (300, 11)] {
            assert_eq!(found(count, &[]), (vec![], 1));
            for place in 0..count {
                let (wrong, asked) = found(count, &[(place, 7)]);
                assert_eq!(wrong, [place]);
                assert!(asked <= at_most, "{asked} questions for {place} of {count}");
            }
        }
    }

    #[test]
    fn all_wrong_costs_at_most_two_questions_each_and_a_logarithm() {
        for count in [1, 2, 7, 128, 300] {
            let off: Vec<_> = (0..count).map(|place| (place, 1)).collect();
            let (wrong, asked) = found(count, &off);
            assert_eq!(wrong, (0..count).collect::<Vec<_>>());
            assert!(asked <= 2 * count + 9, "{asked} questions for {count}");
        }
    }

    #[test]
    fn what_makes_up_for_one_another_is_kept_together_or_named() {
        assert_eq!(found(8, &[(2, 5), (3, -5)]), (vec![], 1));
        let (wrong, _) = found(8, &[(2, 5), (3, -5), (7, 1)]);
        assert!(wrong.contains(&7));
        assert!(wrong == [7] || wrong == [2, 3, 7], "{wrong:?}");
    }

    proptest! {
        #[test]
        fn exactly_the_wrong_ones_are_named(
            count in 1..200_usize,
            places in proptest::collection::vec(any::<u16>(), 0..40),
        ) {
            let mut expected: Vec<usize> = places.into_iter().map(|place| usize::from(place) % count).collect();
            expected.sort_unstable();
            expected.dedup();
            // Powers of two never make up for one another.
            let off: Vec<_> = expected.iter().enumerate().map(|(power, place)| (*place, 1_i64 << power)).collect();
            let (wrong, asked) = found(count, &off);
            prop_assert_eq!(wrong, expected);
            prop_assert!(asked <= 2 * count + 9);
        }
    }
}
