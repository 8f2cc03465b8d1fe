//! The order in which tasks run.

use std::cmp::Ordering;

/// Dask's priority tuple `(-user priority, generation, order)`: the smaller runs first.
///
/// The user's priority may be a fraction; NaN and infinities never get here (`is_valid_user_priority`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Priority {
    /// What the user gave: higher runs first.
    pub user: f64,
    /// Counts graphs that came later than the FIFO timeout after one another; fractions come from tasks that submit tasks.
    pub generation: f64,
    /// The place that `dask.order` gave the task in its graph.
    pub order: i64,
}

impl Priority {
    pub const fn new(user: f64, generation: f64, order: i64) -> Self {
        Self { user, generation, order }
    }

    /// Whether a number can be a user's priority at all.
    pub fn is_valid_user_priority(user: f64) -> bool {
        user.is_finite()
    }
}

impl Eq for Priority {}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        other.user.total_cmp(&self.user).then(self.generation.total_cmp(&other.generation)).then(self.order.cmp(&other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::Priority;

    #[test]
    fn a_higher_user_priority_comes_first_then_the_older_generation_then_the_order() {
        let mut priorities = [
            Priority::new(0.0, 1.0, 0),
            Priority::new(0.0, 0.0, 5),
            Priority::new(0.0, 0.0, 2),
            Priority::new(0.5, 9.0, 9),
            Priority::new(-1.0, 0.0, 0),
        ];
        priorities.sort();
        let order: Vec<(f64, i64)> = priorities.iter().map(|p| (p.user, p.order)).collect();
        assert_eq!(order, [(0.5, 9), (0.0, 2), (0.0, 5), (0.0, 0), (-1.0, 0)]);
    }
}
