//! Notices workers that say nothing although their comms stand: stopped, cut off, or kept busy by a task that holds Python's
//! lock. What becomes of their work the engine decides.
//!
//! A worker of which nothing was heard for a while is asked whether it is there, so it does not matter how rare heartbeats
//! are. The question is about a run that there never was: any stock worker answers that from its event loop.
//!
//! A silent one is called on fresh comms: when a network that was cut is mended, what was under way on the comms there are
//! comes only after about as long again, and what others wait for may be fetched before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{info, warn};

use crate::dask::TaskKey;
use crate::engine::{Stimulus, WorkerId};
use crate::server::builder::Presence;
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::wire::encode::encode_message;
use crate::wire::messages::{Ask, ToWorker};

/// A worker is asked when nothing was heard of it for so long,
const ASK_AFTER: Duration = Duration::from_secs(4);
/// and is silent when nothing was heard for so long, while others spoke.
const SILENT_AFTER: Duration = Duration::from_secs(9);
/// Who did not listen for so long cannot tell who was silent.
const AWAY: Duration = Duration::from_secs(2);
/// How long to wait for the answer to a call. Fresh ones are lost as others are, and sent again after twice the time.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Names the question and its answer.
const QUESTION: &str = "mainstay-are-you-there";

/// When there was something to be heard.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    looked: Option<Instant>,
}

/// How long nothing was heard of a worker, and whether that is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Speaks,
    IsQuiet,
    IsSilent,
}

/// `newest` is when any worker was heard: if nobody is, it is more likely that we are cut off.
fn judge(heard: Instant, newest: Instant) -> Verdict {
    match newest.saturating_duration_since(heard) {
        quiet if quiet > SILENT_AFTER => Verdict::IsSilent,
        quiet if quiet > ASK_AFTER => Verdict::IsQuiet,
        _ => Verdict::Speaks,
    }
}

/// Whether a worker's answer is one to that question.
pub(crate) fn is_answer(stimulus_id: &str) -> bool {
    stimulus_id == QUESTION
}

impl Namespace {
    /// Tells the engine who is silent, and asks who may be.
    pub(crate) fn watch_for_silence(&mut self) {
        let now = Instant::now();
        let was_away = self.listening.looked.replace(now).is_some_and(|before| now - before > AWAY);
        if was_away {
            self.workers.entries.values_mut().for_each(|worker| worker.last_seen = now);
        }
        let Some(newest) = self.workers.entries.values().map(|worker| worker.last_seen).max() else { return };
        let speaking: Vec<(WorkerId, Verdict)> = self
            .workers
            .entries
            .iter()
            .filter(|(_, worker)| !worker.is_silent)
            .map(|(id, worker)| (*id, judge(worker.last_seen, newest)))
            .collect();
        let silent: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.is_silent && !worker.is_called).map(|(id, _)| id).collect();
        silent.into_iter().for_each(|id| self.call_silent(id));
        for (id, verdict) in speaking {
            match verdict {
                Verdict::Speaks => {}
                Verdict::IsQuiet => self.ask_whether_there(id, now),
                Verdict::IsSilent => self.on_silence(id),
            }
        }
    }

    fn ask_whether_there(&mut self, id: WorkerId, now: Instant) {
        let Some(worker) = self.workers.entries.get_mut(&id) else { return };
        if worker.asked.is_none_or(|asked| asked < worker.last_seen) {
            worker.asked = Some(now);
            let question = ToWorker::StealRequest { key: TaskKey::from_text(QUESTION), stimulus_id: QUESTION.to_owned() };
            self.workers.tell(id, &question);
        }
    }

    fn on_silence(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.entries.get_mut(&id) else { return };
        worker.is_silent = true;
        worker.presence.send_replace(Presence::Silent);
        let address = worker.address.clone();
        warn!(worker = %worker.name, %address, "nothing is heard of a worker; its work goes elsewhere");
        self.stimulate(Stimulus::WorkerSilent { worker: id });
        // What it has not said yet of what it brings it may say later.
        self.on_all_said(id);
        self.note(&["all", address.as_str()], "worker-silent", [("worker", address.as_str().into())]);
    }

    fn call_silent(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.entries.get_mut(&id) else { return };
        worker.is_called = true;
        let address = worker.address.clone();
        // What is kept may be cut off.
        self.pool.forget(&address);
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            let answer = timeout(CALL_TIMEOUT, pool.call(&address, encode_message(&Ask::new("identity")))).await;
            // The loop has ended when nobody takes it.
            let _ = events.send(Event::Called { worker: id, answers: matches!(answer, Ok(Ok(_))) }).await;
        });
    }

    /// A silent worker was called.
    pub(crate) fn on_called(&mut self, id: WorkerId, answers: bool) {
        if let Some(worker) = self.workers.entries.get_mut(&id) {
            worker.is_called = false;
        }
        if answers {
            self.heard_of(id);
        }
    }

    /// A worker has said something.
    pub(crate) fn heard_of(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.entries.get_mut(&id) else { return };
        let quiet = worker.last_seen.elapsed();
        worker.last_seen = Instant::now();
        if std::mem::take(&mut worker.is_silent) {
            worker.presence.send_replace(Presence::There);
            let address = worker.address.clone();
            info!(worker = %worker.name, %address, silent_s = quiet.as_secs(), "a silent worker speaks again");
            self.stimulate(Stimulus::WorkerHeard { worker: id });
            self.note(&["all", address.as_str()], "worker-heard", [("worker", address.as_str().into())]);
            self.start_builds();
            self.start_lowering();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_while_others_speak_is_asked_and_then_silent() {
        let start = Instant::now();
        for (heard, newest, verdict) in [
            (20, 20, Verdict::Speaks),
            (15, 20, Verdict::IsQuiet),
            (10, 20, Verdict::IsSilent),
            // Nobody is heard: nobody is silent.
            (0, 0, Verdict::Speaks),
        ] {
            let at = |seconds| start + Duration::from_secs(seconds);
            assert_eq!(judge(at(heard), at(newest)), verdict, "{heard} {newest}");
        }
    }
}
