//! One namespace's scheduler: an engine with its listener.
//!
//! Turns messages into stimuli and instructions into messages, answers RPCs, and has graphs built on workers.
//! Owns connections, Clients and datasets; decides nothing about tasks, which is the engine's.
//!
//! ```text
//! accept ──► events ──► namespace (the loop: engine + registries) ──► outboxes
//!                 ▲         │ spawns: builder, call
//!                 └─────────┘
//! ```

mod accept;
mod admission;
mod benchmark;
mod build_document;
mod build_request;
mod builder;
mod call;
mod carry_out;
mod certificates;
mod clients;
mod clock;
mod collection;
mod collections;
mod coordination;
mod copies;
mod datasets;
mod departures;
mod diagnostics;
mod documents;
mod event;
mod feed;
mod handle;
mod inputs;
mod losses;
mod memory_samples;
mod metadata;
mod namespace;
mod nannies;
mod onlookers;
mod performance_report;
mod plugins;
mod quarantine;
mod rebalance;
mod replay;
mod replicate;
mod requests;
mod restart;
mod retire;
mod reunion;
mod rivals;
mod scaling;
mod scatter;
mod shuffles;
mod silence;
mod stand_in;
mod task_stream;
mod throttle;
mod topics;
mod versions;
mod worker_messages;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use admission::{Admission, Departure, End, Facts, Verdict};
pub use build_request::{Actors, BuildRequest, InlineTask, Input, Source};
pub use clock::epoch_of_now;
pub use handle::{BuildError, CollectionRequest, Handle, LostWorker, OutputInfo, Past, Refusal, Report, Stage};
pub use inputs::{MissingInput, WhyMissing, describe_cycle};
pub use stand_in::{Asked, StandIn};

pub use crate::comm::Fence;
use crate::comm::{Pool, Tls, scheme};
use crate::engine::Engine;
use crate::server::accept::{Guests, Reception, accept_loop};
use crate::server::namespace::{Identity, Namespace, Start};

/// The text of the preload that lets a worker outlive its scheduler. It is loaded into stock workers, and runs nowhere else.
pub const KEEPER: &str = include_str!("keeper.py");

/// Events that wait for the loop; then peers wait, whose sockets fill.
const EVENTS_MAX: usize = 4096;

/// What a namespace's server is started with.
pub struct Config {
    pub engine: crate::engine::Config,
    pub seed: u64,
    /// Judges who may register as a worker.
    pub admission: Arc<dyn Admission>,
    /// How comms are encrypted, those of workers with each other as well; `None` for plain TCP.
    pub tls: Option<Tls>,
    /// Where collections with a new report are told, by uid.
    pub changed: mpsc::UnboundedSender<String>,
    /// How we call ourselves: `Scheduler-…`.
    pub id: String,
    /// Where people find health and metrics.
    pub http_port: u16,
    /// While it is not open the server neither decides nor says anything; it ends when it is closed.
    pub fence: Fence,
    /// How long workers are waited for that `admission` knows to be there, before anything is computed.
    pub patience: Duration,
}

/// Starts a server on a socket. It ends when the last handle is dropped, or its fence is closed.
///
/// It has a thread of its own: what it reads, decides and writes needs no other thread to wake up, and what is slow in one
/// namespace holds up no other. Only calls of workers, with graphs and results to be read, are made on the caller's runtime.
///
/// # Errors
/// When the socket has no address, or there is no further thread.
pub fn start(config: Config, listener: TcpListener) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let (events, arriving) = mpsc::channel(EVENTS_MAX);
    let (requests, asked) = mpsc::channel(EVENTS_MAX);
    let (commands, commanded) = mpsc::unbounded_channel();
    let handle = Handle { commands, reports: handle::Reports::default() };
    let identity = Identity {
        id: config.id,
        address: format!("{}://{}", scheme(config.tls.as_ref()), listener.local_addr()?),
        http_port: config.http_port,
        started: clock::unix_seconds(),
        epoch: config.engine.epoch,
    };
    let namespace = Namespace::new(Start {
        engine: Engine::new(config.engine, config.seed),
        admission: Arc::clone(&config.admission),
        reports: Arc::clone(&handle.reports),
        changed: config.changed,
        events: events.clone(),
        identity,
        pool: Pool::new(tokio::runtime::Handle::current(), config.tls.clone(), config.fence.clone()),
        fence: config.fence.clone(),
        patience: config.patience,
    });
    let guests = Arc::new(Guests::default());
    let recording = namespace.task_stream.recording();
    let pool = Arc::clone(&namespace.pool);
    let reception = Reception {
        events,
        requests,
        admission: config.admission,
        tls: config.tls,
        fence: config.fence,
        guests,
        pool,
        recording,
    };
    let listener = listener.into_std()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        let result = runtime.block_on(async {
            tokio::spawn(accept_loop(TcpListener::from_std(listener)?, reception));
            namespace.run(asked, arriving, commanded).await;
            Ok(())
        });
        // Whoever started it may have ended.
        let _ = ended.send(result);
    })?;
    let server = tokio::spawn(async move {
        let result: std::io::Result<()> = end.await.expect("the thread of a namespace panicked");
        result.expect("a socket that listens can be moved to another runtime");
    });
    Ok((handle, server))
}
