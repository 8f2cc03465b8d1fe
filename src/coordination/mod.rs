//! What tasks and Clients share to coordinate: semaphores and locks, events, variables, queues and multi-locks.
//!
//! Decides without I/O and reads no clock: requests go in with the time, answers come out, some of them later. Keeps no
//! task: which keys are to be kept for a variable or a queue is an effect that the caller carries out.
//!
//! ```text
//! handle(request) ──► answered at once
//!                └──► waits ──┬► another request answers it
//!                             ├► its deadline passes: `on_time`
//!                             └► its caller goes: `on_call_gone`
//! ```
//!
//! Source: distributed 2026.8.0, semaphore.py, event.py, variable.py, queues.py, multi_lock.py. Where those let waiters race,
//! the first here is the one that waited longest.

mod calls;
mod content;
mod event;
mod multi_lock;
mod queue;
mod request;
mod semaphore;
#[cfg(test)]
mod tests;
mod variable;

pub use content::Content;
pub use request::{Answer, Asked, Batch, CallId, Effect, Holder, Refusal, Request};

use crate::coordination::calls::{Calls, Place};
use crate::coordination::event::Events;
use crate::coordination::multi_lock::MultiLocks;
use crate::coordination::queue::Queues;
use crate::coordination::semaphore::Semaphores;
use crate::coordination::variable::Variables;
use crate::dask::TaskKey;
use crate::engine::{ClientId, Millis};

/// Objects of one kind. Their names outlive who made them, so there must be an end.
const OBJECTS_MAX: usize = 100_000;
/// What all variables and queues may hold, in bytes: large data belongs on workers, with a future in its place.
const VALUES_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What a request comes to: an answer, nothing while it waits, or a refusal.
type Outcome = Result<Option<Answer>, Refusal>;

/// All coordination objects of one namespace.
#[derive(Debug, Default)]
pub struct Coordination {
    calls: Calls,
    semaphores: Semaphores,
    events: Events,
    variables: Variables,
    queues: Queues,
    multi_locks: MultiLocks,
}

impl Coordination {
    /// Takes a request. `knows` says whether there is a task of a key: who puts a future waits for its task.
    pub fn handle(&mut self, now: Millis, asked: Asked, knows: &dyn Fn(&TaskKey) -> bool, effects: &mut Vec<Effect>) {
        let from = effects.len();
        let Asked { call, deadline, request } = asked;
        let place = Place::of(&request);
        let is_batch = matches!(request, Request::QueueGet { batch: Batch::Count(_), .. });
        match request.future() {
            _ if is_batch && deadline.is_some() => {
                effects.push(Effect::Answer { call, answer: Answer::Refused(Refusal::BatchWithTimeout) });
            }
            Some(key) if !knows(key) => self.wait(now, call, deadline, Place::Task(Box::new(request)), effects),
            _ => match self.perform(now, call, request, effects) {
                Ok(Some(answer)) => effects.push(Effect::Answer { call, answer }),
                Ok(None) => self.wait(now, call, deadline, place, effects),
                Err(refusal) => effects.push(Effect::Answer { call, answer: Answer::Refused(refusal) }),
            },
        }
        self.settle(&effects[from..]);
    }

    /// When `on_time` is due if nothing happens.
    pub fn next_timeout(&self) -> Option<Millis> {
        [self.calls.next_deadline(), self.semaphores.next_look()].into_iter().flatten().min()
    }

    /// Ends leases that were not renewed, and answers calls whose time is up.
    pub fn on_time(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let from = effects.len();
        self.semaphores.end_leases(now, effects);
        self.settle(&effects[from..]);
        while let Some((call, place)) = self.calls.take_due(now) {
            let from = effects.len();
            self.give_up(call, place, effects);
            self.settle(&effects[from..]);
        }
    }

    /// Whether a call waits for a task that was not known when it came.
    pub fn awaits_tasks(&self) -> bool {
        self.calls.awaits_tasks()
    }

    /// Puts the futures whose tasks have become known.
    pub fn on_tasks(&mut self, now: Millis, knows: &dyn Fn(&TaskKey) -> bool, effects: &mut Vec<Effect>) {
        for (call, deadline, request) in self.calls.take_known(knows) {
            self.handle(now, Asked { call, deadline, request }, knows, effects);
        }
    }

    /// The caller went away before it was answered: nothing is granted or given to it.
    pub fn on_call_gone(&mut self, call: CallId, effects: &mut Vec<Effect>) {
        let Some(place) = self.calls.take(call) else { return };
        let from = effects.len();
        self.withdraw(call, &place, effects);
        self.settle(&effects[from..]);
    }

    /// A Client has left: what it was told of and did not confirm is not kept for it.
    pub fn on_client_left(&mut self, client: ClientId, effects: &mut Vec<Effect>) {
        self.variables.on_client_left(client, effects);
    }

    /// A variable is to be forgotten; who waits for its value goes on waiting.
    pub fn delete_variable(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        self.variables.delete(name, effects);
    }

    /// A Client wants the future that it got from a variable by itself.
    pub fn confirm_variable(&mut self, name: &TaskKey, token: &str, effects: &mut Vec<Effect>) {
        self.variables.confirm(name, token, effects);
    }

    /// One who uses a queue has closed it.
    pub fn release_queue(&mut self, name: &TaskKey, effects: &mut Vec<Effect>) {
        let from = effects.len();
        self.queues.release(name, effects);
        self.settle(&effects[from..]);
    }

    /// A Client wants the future that it got from a queue by itself.
    pub fn confirm_queue(&mut self, name: &TaskKey, key: &TaskKey, effects: &mut Vec<Effect>) {
        self.queues.let_go(name, key, effects);
    }

    fn perform(&mut self, now: Millis, call: CallId, request: Request, effects: &mut Vec<Effect>) -> Outcome {
        self.check_room(&request)?;
        match request {
            Request::SemaphoreRegister { name, leases_max, lease_timeout_ms } => {
                self.semaphores.register(now, name, leases_max, lease_timeout_ms)
            }
            Request::SemaphoreAcquire { name, lease } => self.semaphores.acquire(now, call, &name, lease),
            Request::SemaphoreRelease { name, lease } => self.semaphores.release(now, &name, &lease, effects),
            Request::SemaphoreRefreshLeases { name, leases } => self.semaphores.refresh(now, &name, leases),
            Request::SemaphoreValue { name } => self.semaphores.value(&name),
            Request::SemaphoreClose { name } => self.semaphores.close(&name, effects),
            Request::EventWait { name } => self.events.wait(call, name),
            Request::EventSet { name } => self.events.set(name, effects),
            Request::EventClear { name } => self.events.clear(&name),
            Request::EventIsSet { name } => self.events.is_set(&name),
            Request::VariableSet { name, content } => self.variables.set(name, content, effects),
            Request::VariableGet { name, client } => self.variables.get(call, name, client),
            Request::QueueCreate { name, items_max } => self.queues.create(name, items_max),
            Request::QueuePut { name, content } => self.queues.put(call, &name, content, effects),
            Request::QueueGet { name, batch } => self.queues.get(call, &name, batch, effects),
            Request::QueueSize { name } => self.queues.size(&name),
            Request::MultiLockAcquire { locks, id, count } => self.multi_locks.acquire(call, locks, id, count),
            Request::MultiLockRelease { id } => self.multi_locks.release(&id, effects),
        }
    }

    fn check_room(&self, request: &Request) -> Result<(), Refusal> {
        let added = request.content().map_or(0, Content::nbytes);
        let held = self.variables.nbytes() + self.queues.nbytes();
        if added > 0 && held + added > VALUES_BYTES_MAX { Err(Refusal::NoRoom { bytes_max: VALUES_BYTES_MAX }) } else { Ok(()) }
    }

    fn wait(&mut self, now: Millis, call: CallId, deadline: Option<Millis>, place: Place, effects: &mut Vec<Effect>) {
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.give_up(call, place, effects);
        } else {
            self.calls.wait(call, deadline, place);
        }
    }

    /// Answers a call whose time is up.
    fn give_up(&mut self, call: CallId, place: Place, effects: &mut Vec<Effect>) {
        self.withdraw(call, &place, effects);
        let answer = match place {
            Place::Task(request) => match request.future() {
                Some(key) => Answer::Refused(Refusal::UnknownTask { key: key.clone() }),
                None => Answer::Refused(Refusal::TimedOut),
            },
            Place::Semaphore(_) | Place::Event(_) | Place::MultiLock(_) => Answer::Boolean(false),
            Place::Variable(_) | Place::QueuePut(_) | Place::QueueGet(_) | Place::Nowhere => Answer::Refused(Refusal::TimedOut),
        };
        effects.push(Effect::Answer { call, answer });
    }

    /// Takes a call out of where it waits.
    fn withdraw(&mut self, call: CallId, place: &Place, effects: &mut Vec<Effect>) {
        match place {
            Place::Task(_) | Place::Nowhere => {}
            Place::Semaphore(name) => self.semaphores.withdraw(call, name),
            Place::Event(name) => self.events.withdraw(call, name),
            Place::Variable(name) => self.variables.withdraw(call, name, effects),
            Place::QueuePut(name) => self.queues.withdraw_put(call, name, effects),
            Place::QueueGet(name) => self.queues.withdraw_get(call, name, effects),
            Place::MultiLock(id) => self.multi_locks.withdraw(id, effects),
        }
    }

    /// What was answered waits no longer.
    fn settle(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Answer { call, .. } = effect {
                self.calls.take(*call);
            }
        }
    }
}
