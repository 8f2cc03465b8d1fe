//! What is asked of coordination objects, what is answered, and what is to be done for it.

use std::fmt;

use thiserror::Error;

use crate::coordination::Content;
use crate::dask::TaskKey;
use crate::engine::{ClientId, Millis};

/// One call that may be answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A request with what is known of its caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub call: CallId,
    /// Until when it may wait; for ever without one.
    pub deadline: Option<Millis>,
    pub request: Request,
}

/// What is asked. Names are what Dask takes for names: texts, mostly; a key is anything that can be one.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Makes a semaphore, or makes sure that it is the same one. Leases without a timeout end by release alone.
    SemaphoreRegister {
        name: TaskKey,
        leases_max: i64,
        lease_timeout_ms: Option<u64>,
    },
    SemaphoreAcquire {
        name: TaskKey,
        lease: TaskKey,
    },
    SemaphoreRelease {
        name: TaskKey,
        lease: TaskKey,
    },
    SemaphoreRefreshLeases {
        name: TaskKey,
        leases: Vec<TaskKey>,
    },
    SemaphoreValue {
        name: TaskKey,
    },
    SemaphoreClose {
        name: TaskKey,
    },
    EventWait {
        name: TaskKey,
    },
    EventSet {
        name: TaskKey,
    },
    EventClear {
        name: TaskKey,
    },
    EventIsSet {
        name: TaskKey,
    },
    VariableSet {
        name: TaskKey,
        content: Content,
    },
    VariableGet {
        name: TaskKey,
        client: Option<ClientId>,
    },
    /// Without `items_max` any number fits in.
    QueueCreate {
        name: TaskKey,
        items_max: Option<usize>,
    },
    QueuePut {
        name: TaskKey,
        content: Content,
    },
    QueueGet {
        name: TaskKey,
        batch: Batch,
    },
    QueueSize {
        name: TaskKey,
    },
    /// `count` of these locks are enough.
    MultiLockAcquire {
        locks: Vec<TaskKey>,
        id: TaskKey,
        count: usize,
    },
    MultiLockRelease {
        id: TaskKey,
    },
}

impl Request {
    /// What is to be put somewhere.
    pub(super) fn content(&self) -> Option<&Content> {
        match self {
            Self::VariableSet { content, .. } | Self::QueuePut { content, .. } => Some(content),
            _ => None,
        }
    }

    /// The key of the future that is to be put somewhere.
    pub(super) fn future(&self) -> Option<&TaskKey> {
        self.content().and_then(Content::future)
    }
}

/// How much is wanted of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// One, by itself and not in a list.
    One,
    /// What is there now.
    All,
    /// So many, however long it takes.
    Count(usize),
}

/// What a call is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Nil,
    Boolean(bool),
    Count(usize),
    /// From a variable with a token that the Client is to confirm, from a queue without.
    Content {
        content: Content,
        token: Option<u64>,
    },
    Contents(Vec<Content>),
    Refused(Refusal),
}

/// Why a request cannot be served. Where stock Dask has a text it is that one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("Semaphore or Lock `{name}` not known.")]
    UnknownSemaphore { name: TaskKey },
    #[error("Inconsistent max leases: {given}, expected: {expected}")]
    InconsistentLeases { given: i64, expected: i64 },
    #[error("{name}")]
    UnknownQueue { name: TaskKey },
    #[error("{id}")]
    UnknownMultiLock { id: TaskKey },
    #[error("the MultiLock {id} was acquired before and not released")]
    AcquiredBefore { id: TaskKey },
    #[error("{count} locks cannot be had of {locks}")]
    TooFewLocks { count: usize, locks: usize },
    #[error("Dask queues don't support simultaneous use of integer batch sizes and timeouts")]
    BatchWithTimeout,
    #[error("Task {key} unknown to scheduler.")]
    UnknownTask { key: TaskKey },
    #[error("time is up")]
    TimedOut,
    #[error("there are {max} {kind} already: close or delete what is not used any more")]
    TooMany { kind: &'static str, max: usize },
    #[error("variables and queues hold {bytes_max} bytes at most: scatter large data and put its future there")]
    NoRoom { bytes_max: usize },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Answer {
        call: CallId,
        answer: Answer,
    },
    /// The result of a task is wanted.
    Hold {
        holder: Holder,
        key: TaskKey,
    },
    /// It is wanted no longer.
    LetGo {
        holder: Holder,
        key: TaskKey,
    },
    /// The holder wants nothing any more and is not there any more.
    Gone {
        holder: Holder,
    },
}

/// Who wants the results of tasks. Shown as Dask names the Client that stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Variable(TaskKey),
    Queue(TaskKey),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "variable-{name}"),
            Self::Queue(name) => write!(f, "queue-{name}"),
        }
    }
}
