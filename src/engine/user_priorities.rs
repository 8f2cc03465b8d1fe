//! How many tasks are under way of each priority that users gave.

use std::collections::BTreeMap;

/// Counts by priority; mostly there is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UserPriorities(BTreeMap<i64, usize>);

impl UserPriorities {
    pub(super) fn add(&mut self, user: f64) {
        *self.0.entry(rank(user)).or_default() += 1;
    }

    pub(super) fn remove(&mut self, user: f64) {
        let rank = rank(user);
        if let Some(count) = self.0.get_mut(&rank) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&rank);
            }
        }
    }

    /// Whether there is a task of a lower priority.
    pub(super) fn has_below(&self, user: f64) -> bool {
        self.0.first_key_value().is_some_and(|(lowest, _)| *lowest < rank(user))
    }
}

/// Orders numbers as `f64::total_cmp` does.
fn rank(user: f64) -> i64 {
    let bits = user.to_bits().cast_signed();
    bits ^ (bits >> 63).cast_unsigned().wrapping_shr(1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_that_is_left_counts() {
        let mut priorities = UserPriorities::default();
        [5.0, -1.5, 0.0, -1.5].into_iter().for_each(|user| priorities.add(user));
        assert!(priorities.has_below(-1.0) && !priorities.has_below(-1.5));
        priorities.remove(-1.5);
        assert!(priorities.has_below(0.0));
        priorities.remove(-1.5);
        assert!(priorities.has_below(1e-300) && !priorities.has_below(0.0));
    }
}
