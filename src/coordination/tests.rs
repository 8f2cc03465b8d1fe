mod events;
mod multi_locks;
mod queues;
mod semaphores;
mod variables;

use super::*;
use crate::wire::value::Value;

/// Objects with a clock and what they said last.
#[derive(Default)]
struct World {
    coordination: Coordination,
    now: u64,
    calls: u64,
    known: Vec<TaskKey>,
}

fn name(text: &str) -> TaskKey {
    TaskKey::from_text(text)
}

fn number(integer: i64) -> Content {
    Content::Value(Value::Integer(integer))
}

fn future(key: &str) -> Content {
    Content::Future(name(key))
}

fn got(content: Content) -> Answer {
    Answer::Content { content, token: None }
}

fn to(call: u64, answer: Answer) -> Effect {
    Effect::Answer { call: CallId(call), answer }
}

fn timed_out() -> Answer {
    Answer::Refused(Refusal::TimedOut)
}

impl World {
    /// Asks with a time to wait; gives all effects. Calls are numbered from 1.
    fn ask_within(&mut self, timeout: Option<u64>, request: Request) -> Vec<Effect> {
        self.calls += 1;
        let deadline = timeout.map(|timeout| Millis(self.now + timeout));
        let mut effects = Vec::new();
        let asked = Asked { call: CallId(self.calls), deadline, request };
        self.coordination.handle(Millis(self.now), asked, &|key| self.known.contains(key), &mut effects);
        effects
    }

    fn ask(&mut self, request: Request) -> Vec<Effect> {
        self.ask_within(None, request)
    }

    /// Asks what is answered at once, with nothing else happening.
    fn answer(&mut self, request: Request) -> Answer {
        match &self.ask(request)[..] {
            [Effect::Answer { call, answer }] if call.0 == self.calls => answer.clone(),
            other => panic!("not one answer: {other:?}"),
        }
    }

    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        let mut effects = Vec::new();
        self.coordination.on_time(Millis(self.now), &mut effects);
        effects
    }

    fn gone(&mut self, call: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.coordination.on_call_gone(CallId(call), &mut effects);
        effects
    }

    fn semaphore(&mut self, leases_max: i64, lease_timeout_ms: Option<u64>) {
        let request = Request::SemaphoreRegister { name: name("s"), leases_max, lease_timeout_ms };
        assert_eq!(self.answer(request), Answer::Nil);
    }

    fn leases(&mut self) -> Answer {
        self.answer(Request::SemaphoreValue { name: name("s") })
    }

    fn queue(&mut self, items_max: Option<usize>) {
        assert_eq!(self.answer(Request::QueueCreate { name: name("q"), items_max }), Answer::Nil);
    }
}

fn acquire(lease: &str) -> Request {
    Request::SemaphoreAcquire { name: name("s"), lease: name(lease) }
}

fn release(lease: &str) -> Request {
    Request::SemaphoreRelease { name: name("s"), lease: name(lease) }
}

fn wait_event() -> Request {
    Request::EventWait { name: name("e") }
}

fn put(content: Content) -> Request {
    Request::QueuePut { name: name("q"), content }
}

fn get(batch: Batch) -> Request {
    Request::QueueGet { name: name("q"), batch }
}

fn set(content: Content) -> Request {
    Request::VariableSet { name: name("v"), content }
}

fn read(client: u32) -> Request {
    Request::VariableGet { name: name("v"), client: Some(ClientId(client)) }
}

fn lock(id: &str, locks: &[&str], count: usize) -> Request {
    Request::MultiLockAcquire { locks: locks.iter().map(|lock| name(lock)).collect(), id: name(id), count }
}

fn hold(holder: fn(TaskKey) -> Holder, object: &str, key: &str) -> Effect {
    Effect::Hold { holder: holder(name(object)), key: name(key) }
}

fn let_go(holder: fn(TaskKey) -> Holder, object: &str, key: &str) -> Effect {
    Effect::LetGo { holder: holder(name(object)), key: name(key) }
}
