//! How many tasks are under way of each priority that users gave.

use smallvec::SmallVec;

/// Counts by priority, ascending; mostly there is one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UserPriorities(SmallVec<[(i64, u32); 2]>);

impl UserPriorities {
    pub(super) fn add(&mut self, user: f64) {
        match self.place(user) {
            Ok(place) => self.0[place].1 += 1,
            Err(place) => self.0.insert(place, (rank(user), 1)),
        }
    }

    pub(super) fn remove(&mut self, user: f64) {
        let Ok(place) = self.place(user) else { return };
        self.0[place].1 -= 1;
        if self.0[place].1 == 0 {
            self.0.remove(place);
        }
    }

    /// One that was there has another priority.
    pub(super) fn change(&mut self, from: f64, to: f64) {
        self.remove(from);
        self.add(to);
    }

    /// Whether there is a task of a lower priority.
    pub(super) fn has_below(&self, user: f64) -> bool {
        self.0.first().is_some_and(|(lowest, _)| *lowest < rank(user))
    }

    /// How many have this priority or a higher one.
    pub(super) fn count_from(&self, user: f64) -> usize {
        self.0.iter().rev().take_while(|(found, _)| *found >= rank(user)).map(|(_, count)| *count as usize).sum()
    }

    fn place(&self, user: f64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&rank(user), |(found, _)| *found)
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
        assert_eq!([-2.0, -1.5, -1.0, 5.0, 6.0].map(|user| priorities.count_from(user)), [4, 4, 2, 1, 0]);
        priorities.remove(-1.5);
        assert!(priorities.has_below(0.0));
        priorities.remove(-1.5);
        assert!(priorities.has_below(1e-300) && !priorities.has_below(0.0));
    }
}
