//! Waits for those who were there before: workers that outlived another scheduler, or their connection, and what they bring.
//!
//! Who comes back says that others may. Until all are here, or too much time has passed, the engine holds: nothing is
//! computed that somebody is about to bring. What was brought is kept until all graphs are there that may ask for it, and
//! some time longer, since a Client may ask for the same again.
//!
//! ```text
//! the first is back, or a scheduler starts in a cluster ─► hold ─► all are here ─► on ─► all graphs are here ─► 60 s ─► drop
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::info;

use crate::engine::{Stimulus, WorkerId};
use crate::server::namespace::Namespace;

/// Within this time of one worker that comes back the others do: they try again each half a second (keeper.py).
const RETURN_SPREAD: Duration = Duration::from_millis(1500);
/// Nobody is waited for any longer.
const HOLD_MAX: Duration = Duration::from_secs(30);
/// So long what nobody asks for is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// As long as a graph may take to be made (`builder.rs`): after that nobody is waited for.
const KEPT_MAX: Duration = Duration::from_secs(30 * 60);

/// Who has come back, and who is waited for.
#[derive(Debug, Default)]
pub(crate) struct Reunion {
    /// How long workers are waited for that are known to be there, from a start on.
    patience: Duration,
    /// Since when the engine holds, if it does.
    since: Option<Instant>,
    /// When a worker of another scheduler came back last.
    last_return: Option<Instant>,
    /// All and only workers that are back and have not said yet all that they have.
    returning: BTreeSet<WorkerId>,
    /// Since when nobody is waited for.
    over_since: Option<Instant>,
    /// Whether all collections that there are have been asked for.
    all_applied: bool,
}

impl Reunion {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, ..Self::default() }
    }

    pub(crate) fn holds(&self) -> bool {
        self.since.is_some()
    }

    /// Whether nobody is to be waited for any more. `absent` is how many workers are known to be somewhere and are not here;
    /// `None` if that is not known.
    fn is_over(&self, now: Instant, absent: Option<usize>) -> bool {
        let Some(since) = self.since else { return false };
        let waited = now.saturating_duration_since(since);
        let others_may_come = match absent {
            Some(0) => false,
            Some(_) => waited < self.patience,
            None if waited < self.patience => true,
            None => self.last_return.is_some_and(|at| now.saturating_duration_since(at) < RETURN_SPREAD),
        };
        waited >= HOLD_MAX || (self.returning.is_empty() && !others_may_come)
    }

    /// Whether what nobody has asked for is to go. `awaits_graphs` says whether a graph is still to come.
    fn is_to_forget(&self, now: Instant, awaits_graphs: impl FnOnce() -> bool) -> bool {
        let Some(since) = self.over_since.filter(|_| self.all_applied && !self.holds()) else { return false };
        let kept = now.saturating_duration_since(since);
        kept >= KEPT_FOR && (kept >= KEPT_MAX || !awaits_graphs())
    }
}

impl Namespace {
    /// A scheduler starts: workers that are known to be there will come.
    pub(crate) fn await_workers(&mut self) {
        if !self.reunion.patience.is_zero() {
            self.hold();
        }
    }

    /// A worker that belonged to the scheduler of this epoch registers.
    pub(crate) fn on_return(&mut self, epoch: u64) {
        if epoch != self.identity.epoch {
            self.reunion.last_return = Some(Instant::now());
        }
        self.hold();
    }

    pub(crate) fn await_inventory(&mut self, worker: WorkerId) {
        self.reunion.returning.insert(worker);
    }

    /// A worker has said all that it has, or is gone.
    pub(crate) fn on_all_said(&mut self, worker: WorkerId) {
        if self.reunion.returning.remove(&worker) {
            self.go_on_reuniting();
        }
    }

    /// All collections that there are have been asked for.
    pub(crate) fn on_all_applied(&mut self) {
        self.reunion.all_applied = true;
    }

    fn hold(&mut self) {
        if !self.reunion.holds() {
            self.reunion.since = Some(Instant::now());
            self.stimulate(Stimulus::Hold { holds: true });
        }
    }

    pub(crate) fn go_on_reuniting(&mut self) {
        let now = Instant::now();
        if self.reunion.holds() && self.reunion.is_over(now, self.absent_workers()) {
            self.reunion.since = None;
            self.reunion.over_since = Some(now);
            let stats = self.engine.stats();
            let (results, runs, not_asked_for) = (stats.adopted_results, stats.adopted_runs, self.engine.brought());
            info!(workers = self.workers.len(), results, runs, not_asked_for, "took over what workers brought");
            self.stimulate(Stimulus::Hold { holds: false });
            self.start_builds();
        }
        if self.reunion.is_to_forget(now, || self.collections.await_graphs()) {
            self.reunion.over_since = None;
            info!(keys = self.engine.brought(), "dropping what workers brought and nobody has asked for");
            self.stimulate(Stimulus::ForgetBrought);
            self.drop_useless_documents();
        }
    }

    /// How many workers are somewhere and have not registered, if that is known.
    fn absent_workers(&self) -> Option<usize> {
        let present: BTreeSet<&str> = self.workers.iter().filter_map(|(_, worker)| worker.pod()).collect();
        let pods = self.admission.running_pods()?;
        Some(pods.iter().filter(|pod| !present.contains(pod.as_str())).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(since: Instant, patience_s: u64) -> Reunion {
        Reunion { since: Some(since), ..Reunion::new(Duration::from_secs(patience_s)) }
    }

    fn after(since: Instant, ms: u64) -> Instant {
        since + Duration::from_millis(ms)
    }

    #[test]
    fn it_is_over_when_all_that_are_known_are_here_and_have_said_what_they_have() {
        let start = Instant::now();
        let mut reunion = holding(start, 15);
        assert!(!reunion.is_over(after(start, 200), Some(1)));
        assert!(!reunion.is_over(after(start, 200), None), "it is not known yet who is there");
        reunion.returning.insert(WorkerId(1));
        assert!(!reunion.is_over(after(start, 400), Some(0)));
        reunion.returning.clear();
        assert!(reunion.is_over(after(start, 400), Some(0)));
        assert!(reunion.is_over(after(start, 15_000), Some(1)), "one that does not come is waited for so long");
    }

    #[test]
    fn where_nobody_is_known_others_come_soon_after_the_first() {
        let start = Instant::now();
        let mut reunion = holding(start, 0);
        reunion.last_return = Some(after(start, 1_000));
        assert!(!reunion.is_over(after(start, 2_000), None));
        assert!(reunion.is_over(after(start, 2_500), None));
    }

    #[test]
    fn who_never_says_all_holds_nobody_up_for_ever() {
        let start = Instant::now();
        let mut reunion = holding(start, 15);
        reunion.returning.insert(WorkerId(1));
        assert!(!reunion.is_over(after(start, 29_000), Some(0)));
        assert!(reunion.is_over(after(start, 30_000), Some(0)));
    }

    #[test]
    fn what_was_brought_goes_a_while_after_the_last_graph_has_come() {
        let start = Instant::now();
        let mut reunion = Reunion { over_since: Some(start), ..Reunion::default() };
        assert!(!reunion.is_to_forget(after(start, 60_000), || false), "collections may be missing");
        reunion.all_applied = true;
        assert!(reunion.is_to_forget(after(start, 60_000), || false));
        assert!(!reunion.is_to_forget(after(start, 60_000), || true), "one is still being built");
        assert!(reunion.is_to_forget(after(start, 30 * 60_000), || true));
        reunion.since = Some(start);
        assert!(!reunion.is_to_forget(after(start, 60_000), || false), "others may come");
    }
}
