//! Who serves a namespace: what to do about its Lease, by what was seen of it and the clock alone.
//!
//! ```text
//!             nobody has it, or it was seen unchanged for 15 s
//! standby ───────────────────────────────────────────────────► holder ─► renews every 5 s
//!    ▲   another has it: known at once, or by a write that fails   │
//!    └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Safety is not in the Lease's time, which clocks and pauses can break, but in its versions and its epoch. Whoever takes it
//! writes a higher epoch over the version that was seen, before anything is served; workers do not go back to a lower one. The
//! holder's time matters for one thing: for so long it needs no further proof that nobody else has taken the Lease.
//!
//! **An API server that does not answer** lets nobody take the Lease by it. So a holder that goes on trying goes on serving. One that
//! did not try, because its process was stopped, serves again when it has renewed.

use std::time::Duration;

use crate::comm::Boottime;

/// A Lease that was seen unchanged for so long is anybody's.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// After the last proof a holder says nothing more to anybody.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals.
const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long a write may take. Several fit into the deadline.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// With each namespace that an operator has it leaves the next for so much longer to others.
const RESERVE: Duration = Duration::from_millis(100);
const RESERVE_MAX: Duration = Duration::from_secs(1);

/// A process of an operator: another after each start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pod: Option<String>,
    start: u64,
}

impl Identity {
    /// `start` is a number that no other process has.
    pub(super) fn new(pod: Option<String>, start: u64) -> Self {
        Self { pod, start }
    }

    /// As it stands in a Lease. The names of pods have no underscore.
    pub(super) fn holder(&self) -> String {
        format!("{}_{:016x}", self.pod.as_deref().unwrap_or_default(), self.start)
    }

    /// Whether the holder was an earlier process in the same pod: that has ended, or this one would not have been started.
    fn follows(&self, holder: &str) -> bool {
        self.pod.as_deref().is_some_and(|pod| pod_of(holder) == pod && holder != self.holder())
    }
}

/// The pod of a holder.
pub(super) fn pod_of(holder: &str) -> &str {
    holder.rsplit_once('_').map_or(holder, |(pod, _)| pod)
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Grows with every write.
    pub(super) version: u64,
    /// `None` once it was given back.
    pub(super) holder: Option<String>,
    /// How often it was taken, at least; see `Write`.
    pub(super) epoch: u64,
}

/// What was seen of a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sighting {
    /// `None` if there is none.
    pub(super) record: Option<Record>,
    /// Since when it has been like this, for all that is known.
    pub(super) since: Boottime,
}

impl Sighting {
    /// Takes in what is the newest word. A write in between starts its time anew, seen or not.
    pub(super) fn see(&mut self, record: Option<Record>, now: Boottime) {
        if self.record != record {
            *self = Self { record, since: now };
        }
    }

    /// The API server was out of sight: the holder may have been as well, so its time starts anew.
    pub(super) fn lose_sight(&mut self, now: Boottime) {
        self.since = now;
    }
}

/// What an operator has of a Lease.
#[derive(Debug)]
pub(super) struct Claim {
    me: Identity,
    held: Option<Held>,
    /// Nothing is written before.
    retry_at: Boottime,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: u64,
    /// When the last write was begun that succeeded.
    renewed_at: Boottime,
    /// When the last write was begun by which nobody else can have taken the Lease, since it succeeded or reached nobody.
    proven_at: Boottime,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing before this time, or until something else is seen.
    Wait { until: Boottime },
    /// Make the Lease ours.
    Write(Write),
    /// Another has it: what is served by it has to end.
    Lose,
}

/// A Lease as it is to be: ours, from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Over this version and no other; `None` to make it.
    pub(super) over: Option<u64>,
    pub(super) epoch: u64,
    /// Whether it was another's before, or nobody's.
    pub(super) takes: bool,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Written,
    /// It is not as it was seen; what it is will be seen.
    Conflict,
    /// Nobody answered, or without a decision. It may have been written all the same.
    Unanswered,
    /// The namespace is ending, so nobody can make its Lease.
    Ending,
    /// The namespace is gone.
    Gone,
}

/// What may come first beside others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Company {
    /// Leases that this operator has.
    pub(super) mine: usize,
    /// Whether others have some.
    pub(super) is_shared: bool,
}

impl Claim {
    pub(super) fn new(me: Identity) -> Self {
        Self { me, held: None, retry_at: Boottime::default() }
    }

    /// The epoch to serve by.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.held.map(|held| held.epoch)
    }

    /// Until when it is certain that nobody else has the Lease.
    pub(super) fn proven_until(&self) -> Boottime {
        self.held.map_or(Boottime::default(), |held| held.proven_at + RENEW_DEADLINE)
    }

    /// What to do. `epoch_of_now` is a number that grows with time, from which epochs count on where no Lease is left that knows more.
    /// `company` is asked for only where a Lease is free to be taken.
    pub(super) fn next(&self, seen: &Sighting, company: impl FnOnce() -> Company, epoch_of_now: u64, now: Boottime) -> Action {
        let holder = seen.record.as_ref().and_then(|record| record.holder.as_deref());
        let is_mine = holder.is_some_and(|holder| holder == self.me.holder());
        let over = seen.record.as_ref().map(|record| record.version);
        let (due, write) = match self.held {
            Some(_) if holder.is_some() && !is_mine => return Action::Lose,
            Some(held) => (held.renewed_at + RENEW_PERIOD, Write { over, epoch: held.epoch, takes: false }),
            None => {
                let free_at = match holder {
                    // Also what was taken without our knowing.
                    Some(holder) if is_mine || self.me.follows(holder) => now,
                    Some(_) => seen.since + DURATION,
                    None => seen.since + company().reserve(),
                };
                let last = seen.record.as_ref().map_or(0, |record| record.epoch);
                (free_at, Write { over, epoch: epoch_of_now.max(last.saturating_add(1)), takes: true })
            }
        };
        let due = due.max(self.retry_at);
        if due > now { Action::Wait { until: due } } else { Action::Write(write) }
    }

    /// Takes in what came of a write that was begun at some time.
    pub(super) fn wrote(&mut self, write: &Write, begun_at: Boottime, outcome: Outcome, now: Boottime) {
        let proven_until = self.proven_until();
        match (outcome, &mut self.held) {
            (Outcome::Written, held) => {
                *held = Some(Held { epoch: write.epoch, renewed_at: begun_at, proven_at: begun_at });
                self.retry_at = Boottime::default();
                return;
            }
            // Only without a gap: before this write it was certain, and it is still so.
            (Outcome::Unanswered | Outcome::Ending, Some(held)) if proven_until > begun_at => held.proven_at = begun_at,
            // Others had the time to take it. Whoever it was will be seen.
            (Outcome::Conflict, held) if held.is_some_and(|held| held.renewed_at + RENEW_DEADLINE <= now) => *held = None,
            (Outcome::Unanswered | Outcome::Ending | Outcome::Conflict | Outcome::Gone, _) => {}
        }
        self.retry_at = now + RETRY;
    }

    /// What was served by it has ended.
    pub(super) fn lose(&mut self) {
        self.held = None;
    }
}

impl Company {
    fn reserve(self) -> Duration {
        let namespaces = if self.is_shared { self.mine } else { 0 };
        RESERVE.saturating_mul(u32::try_from(namespaces).unwrap_or(u32::MAX)).min(RESERVE_MAX)
    }
}

#[cfg(test)]
mod tests;
