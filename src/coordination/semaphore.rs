//! Semaphores, and locks, which are semaphores of one lease.
//!
//! Who holds a lease is not said, so a holder that died is known by its silence alone: holders refresh their leases, and
//! those that are not refreshed end.

use std::collections::{BTreeMap, VecDeque};

use crate::coordination::request::{Answer, CallId, Effect, Refusal};
use crate::coordination::{OBJECTS_MAX, Outcome};
use crate::dask::TaskKey;
use crate::engine::Millis;

/// Leases are looked at no more often than this, however differently they end.
const LOOK_PAUSE_MS: u64 = 100;
/// A semaphore that was not used for so long may be forgotten when there are too many.
const UNUSED_MS: u64 = 60 * 60 * 1000;
/// Leases of one semaphore, those included that were refreshed after their end.
const LEASES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Semaphores {
    by_name: BTreeMap<TaskKey, Semaphore>,
    /// No lease ends before.
    look_at: Option<Millis>,
}

#[derive(Debug)]
struct Semaphore {
    leases_max: i64,
    lease_timeout_ms: Option<u64>,
    /// When each was granted or refreshed.
    leases: BTreeMap<TaskKey, Millis>,
    /// Calls with the leases they want, the oldest first. Empty unless all leases are out.
    waiting: VecDeque<(CallId, TaskKey)>,
    used_at: Millis,
}

impl Semaphores {
    pub(super) fn register(&mut self, now: Millis, name: TaskKey, leases_max: i64, lease_timeout_ms: Option<u64>) -> Outcome {
        if let Some(semaphore) = self.by_name.get_mut(&name) {
            semaphore.used_at = now;
            return match semaphore.leases_max == leases_max {
                true => Ok(Some(Answer::Nil)),
                false => Err(Refusal::InconsistentLeases { given: leases_max, expected: semaphore.leases_max }),
            };
        }
        if self.by_name.len() >= OBJECTS_MAX {
            self.by_name.retain(|_, semaphore| semaphore.is_used(now));
        }
        if self.by_name.len() >= OBJECTS_MAX {
            return Err(Refusal::TooMany { kind: "semaphores and locks", max: OBJECTS_MAX });
        }
        let lease_timeout_ms = lease_timeout_ms.filter(|timeout| *timeout > 0);
        let (leases, waiting) = (BTreeMap::new(), VecDeque::new());
        self.by_name.insert(name, Semaphore { leases_max, lease_timeout_ms, leases, waiting, used_at: now });
        Ok(Some(Answer::Nil))
    }

    /// Grants a lease that the caller named; one that it holds already is granted again, since callers may ask twice.
    pub(super) fn acquire(&mut self, now: Millis, call: CallId, name: &TaskKey, lease: TaskKey) -> Outcome {
        let unknown = || Refusal::UnknownSemaphore { name: name.clone() };
        let semaphore = self.by_name.get_mut(name).ok_or_else(unknown)?;
        semaphore.used_at = now;
        if !semaphore.leases.contains_key(&lease) && !semaphore.has_room() {
            semaphore.waiting.push_back((call, lease));
            return Ok(None);
        }
        semaphore.leases.insert(lease, now);
        let ends_at = semaphore.ends_at(now);
        self.look_by(ends_at);
        Ok(Some(Answer::Boolean(true)))
    }

    /// A lease that is not there, because it ended or because nobody knows the semaphore, is as good as released.
    pub(super) fn release(&mut self, now: Millis, name: &TaskKey, lease: &TaskKey, effects: &mut Vec<Effect>) -> Outcome {
        if let Some(semaphore) = self.by_name.get_mut(name) {
            semaphore.used_at = now;
            semaphore.leases.remove(lease);
            semaphore.grant(now, effects);
            let ends_at = semaphore.ends_at(now);
            self.look_by(ends_at);
        }
        Ok(Some(Answer::Nil))
    }

    /// Leases that ended before count again: their holder believes in them, even where others have theirs by now.
    pub(super) fn refresh(&mut self, now: Millis, name: &TaskKey, leases: Vec<TaskKey>) -> Outcome {
        if let Some(semaphore) = self.by_name.get_mut(name) {
            semaphore.used_at = now;
            for lease in leases {
                if semaphore.leases.len() < LEASES_MAX || semaphore.leases.contains_key(&lease) {
                    semaphore.leases.insert(lease, now);
                }
            }
            let ends_at = semaphore.ends_at(now);
            self.look_by(ends_at);
        }
        Ok(Some(Answer::Nil))
    }

    /// How many leases are out.
    pub(super) fn value(&self, name: &TaskKey) -> Outcome {
        Ok(Some(Answer::Count(self.by_name.get(name).map_or(0, |semaphore| semaphore.leases.len()))))
    }

    /// Forgets a semaphore; who waits is told that there is none.
    pub(super) fn close(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) -> Outcome {
        let waiting = self.by_name.remove(name).map(|semaphore| semaphore.waiting).unwrap_or_default();
        let refused = || Answer::Refused(Refusal::UnknownSemaphore { name: name.clone() });
        effects.extend(waiting.into_iter().map(|(call, _)| Effect::Answer { call, answer: refused() }));
        Ok(Some(Answer::Nil))
    }

    pub(super) fn withdraw(&mut self, call: CallId, name: &TaskKey) {
        if let Some(semaphore) = self.by_name.get_mut(name) {
            semaphore.waiting.retain(|(waiting, _)| *waiting != call);
        }
    }

    pub(super) fn next_look(&self) -> Option<Millis> {
        self.look_at
    }

    /// Ends the leases that were not refreshed in time, and grants what becomes free.
    pub(super) fn end_leases(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.look_at.is_none_or(|look_at| look_at > now) {
            return;
        }
        self.look_at = None;
        let mut next: Option<Millis> = None;
        for semaphore in self.by_name.values_mut() {
            let Some(timeout) = semaphore.lease_timeout_ms else { continue };
            semaphore.leases.retain(|_, refreshed_at| refreshed_at.0.saturating_add(timeout) >= now.0);
            semaphore.grant(now, effects);
            let ends = semaphore.leases.values().filter_map(|refreshed_at| semaphore.ends_at(*refreshed_at)).min();
            next = next.into_iter().chain(ends).min();
        }
        self.look_at = next.map(|next| next.max(Millis(now.0 + LOOK_PAUSE_MS)));
    }

    fn look_by(&mut self, ends_at: Option<Millis>) {
        self.look_at = self.look_at.into_iter().chain(ends_at).min();
    }
}

impl Semaphore {
    fn has_room(&self) -> bool {
        (self.leases.len() as i64) < self.leases_max && self.leases.len() < LEASES_MAX
    }

    fn is_used(&self, now: Millis) -> bool {
        let is_idle = self.leases.is_empty() && self.waiting.is_empty();
        !is_idle || now.0.saturating_sub(self.used_at.0) < UNUSED_MS
    }

    /// When a lease of now ends if nobody refreshes it: a moment after its time, as the time itself still counts.
    fn ends_at(&self, now: Millis) -> Option<Millis> {
        self.lease_timeout_ms.map(|timeout| Millis(now.0.saturating_add(timeout).saturating_add(1)))
    }

    /// Gives free leases to those who waited longest.
    fn grant(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        while self.has_room()
            && let Some((call, lease)) = self.waiting.pop_front()
        {
            self.leases.insert(lease, now);
            effects.push(Effect::Answer { call, answer: Answer::Boolean(true) });
        }
    }
}
