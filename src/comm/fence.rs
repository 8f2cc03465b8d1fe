//! Whether a server may speak: only while it knows that no other has taken its place.
//!
//! Whoever was stopped, or slept, for a while does not notice by itself. So the clock is looked at before anything is written,
//! and it is one that goes on meanwhile.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

/// Milliseconds since the machine started, also those in which it slept: `Instant` does not count these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(pub u64);

impl Boottime {
    pub const MAX: Self = Self(u64::MAX);

    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000)
    }

    /// How long it is until then; zero if it is over.
    pub fn until(self, then: Self) -> Duration {
        Duration::from_millis(then.0.saturating_sub(self.0))
    }
}

impl Add<Duration> for Boottime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Open up to some time, which whoever keeps it puts off again and again. While it is not open nothing is written, and
/// nothing is lost either; once it is closed it stays so.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    until: AtomicU64,
    changed: Notify,
}

/// Where nobody else can take the place.
const ALWAYS: u64 = u64::MAX;
const NEVER_AGAIN: u64 = 0;

impl Default for Fence {
    fn default() -> Self {
        Self::with(ALWAYS)
    }
}

impl Fence {
    pub fn until(then: Boottime) -> Self {
        Self::with(then.0.max(1))
    }

    fn with(until: u64) -> Self {
        Self(Arc::new(Inner { until: until.into(), changed: Notify::new() }))
    }

    /// Puts off its end; opens it again if that is over.
    pub fn extend(&self, then: Boottime) {
        let later = |until: u64| (until != NEVER_AGAIN).then_some(until.max(then.0));
        // One that is closed stays closed.
        let _ = self.0.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        self.0.changed.notify_waiters();
    }

    /// Ends it at once and for good.
    pub fn close(&self) {
        self.0.until.store(NEVER_AGAIN, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    pub fn is_open(&self) -> bool {
        let until = self.0.until.load(Ordering::Acquire);
        until == ALWAYS || Boottime::now().0 < until
    }

    /// Waits until it is open; false when it is closed for good.
    pub async fn opened(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            if self.is_open() {
                return true;
            }
            if self.0.until.load(Ordering::Acquire) == NEVER_AGAIN {
                return false;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_opens_again_unless_it_is_closed() {
        let fence = Fence::until(Boottime(1));
        assert!(!fence.is_open());
        let waiting = tokio::spawn({
            let fence = fence.clone();
            async move { fence.opened().await }
        });
        fence.extend(Boottime::now() + Duration::from_secs(60));
        assert!(fence.is_open() && waiting.await.unwrap());
        fence.extend(Boottime(1));
        assert!(fence.is_open(), "its end is put off, never brought forward");
        fence.close();
        fence.extend(Boottime::MAX);
        assert!(!fence.is_open() && !fence.opened().await);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_that_it_is_closed() {
        let fence = Fence::until(Boottime(1));
        let closing = async {
            fence.close();
        };
        assert!(!tokio::join!(fence.opened(), closing).0);
    }
}
