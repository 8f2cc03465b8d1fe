//! Calls that wait: where, and until when.

use std::collections::{BTreeMap, BTreeSet};

use crate::coordination::request::{CallId, Request};
use crate::dask::TaskKey;
use crate::engine::Millis;

/// Where a call waits.
#[derive(Debug)]
pub(super) enum Place {
    /// For the task of the future that it puts.
    Task(Box<Request>),
    Semaphore(TaskKey),
    Event(TaskKey),
    Variable(TaskKey),
    QueuePut(TaskKey),
    QueueGet(TaskKey),
    MultiLock(TaskKey),
    /// Requests of this kind are answered at once.
    Nowhere,
}

impl Place {
    /// Where a request waits if it must.
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::SemaphoreAcquire { name, .. } => Self::Semaphore(name.clone()),
            Request::EventWait { name } => Self::Event(name.clone()),
            Request::VariableGet { name, .. } => Self::Variable(name.clone()),
            Request::QueuePut { name, .. } => Self::QueuePut(name.clone()),
            Request::QueueGet { name, .. } => Self::QueueGet(name.clone()),
            Request::MultiLockAcquire { id, .. } => Self::MultiLock(id.clone()),
            _ => Self::Nowhere,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    deadline: Option<Millis>,
    place: Place,
}

/// All calls that wait.
#[derive(Debug, Default)]
pub(super) struct Calls {
    waiting: BTreeMap<CallId, Waiting>,
    /// All and only deadlines of `waiting`.
    deadlines: BTreeSet<(Millis, CallId)>,
    /// All and only calls that wait for a task, the oldest first.
    for_tasks: BTreeSet<CallId>,
}

impl Calls {
    pub(super) fn wait(&mut self, call: CallId, deadline: Option<Millis>, place: Place) {
        self.deadlines.extend(deadline.map(|deadline| (deadline, call)));
        if matches!(place, Place::Task(_)) {
            self.for_tasks.insert(call);
        }
        self.waiting.insert(call, Waiting { deadline, place });
    }

    /// Takes a call out, if it waits.
    pub(super) fn take(&mut self, call: CallId) -> Option<Place> {
        self.remove(call).map(|waiting| waiting.place)
    }

    fn remove(&mut self, call: CallId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&call)?;
        if let Some(deadline) = waiting.deadline {
            self.deadlines.remove(&(deadline, call));
        }
        self.for_tasks.remove(&call);
        Some(waiting)
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out a call whose time is up.
    pub(super) fn take_due(&mut self, now: Millis) -> Option<(CallId, Place)> {
        let (_, call) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        Some((call, self.take(call)?))
    }

    pub(super) fn awaits_tasks(&self) -> bool {
        !self.for_tasks.is_empty()
    }

    /// Takes out the calls whose tasks are known by now, in the order in which they came.
    pub(super) fn take_known(&mut self, knows: &dyn Fn(&TaskKey) -> bool) -> Vec<(CallId, Option<Millis>, Request)> {
        let is_known = |call: &CallId| match self.waiting.get(call).map(|waiting| &waiting.place) {
            Some(Place::Task(request)) => request.future().is_none_or(knows),
            _ => false,
        };
        let known: Vec<CallId> = self.for_tasks.iter().copied().filter(is_known).collect();
        let requests = known.into_iter().filter_map(|call| match self.remove(call)? {
            Waiting { deadline, place: Place::Task(request) } => Some((call, deadline, *request)),
            _ => None,
        });
        requests.collect()
    }
}
