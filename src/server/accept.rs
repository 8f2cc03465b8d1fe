//! Takes connections in and finds out who is there: a worker, a Client, or someone with a request.
//!
//! ```text
//! accept ─► handshake ─► first message ─┬► register-worker ─► stream ─► Event::WorkerSays
//!                                       ├► register-client ─► stream ─► Event::ClientSays
//!                                       └► any other op    ─► one request at a time ─► Event::Asked
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::comm::{Budget, CommError, Connection, Fence, Outbox, Pool, Receiver, Tls, scheme};
use crate::coordination::CallId;
use crate::error::chain;
use crate::server::admission::{Admission, Facts, Verdict};
use crate::server::clock::unix_seconds;
use crate::server::event::{Answer, Arrival, Event};
use crate::server::handle::Refusal;
use crate::server::quarantine::Quarantine;
use crate::server::task_stream::Recording;
use crate::server::throttle::Throttle;
use crate::server::{feed, nannies, onlookers, rivals};
use crate::wire::document::DocumentError;
use crate::wire::encode::encode_batch;
use crate::wire::frame::{FrameError, Message};
use crate::wire::limits::Limits;
use crate::wire::messages::rpc::{self, RegisterClient, RegisterWorker};
use crate::wire::messages::{FromClient, FromWorker, Request, ToClient};
use crate::wire::text::exception_text;
use crate::wire::value::Value;

/// Connections that have not said what they are, from one address other than our own.
const UNKNOWN_A_HOST_MAX: usize = 16;
/// The same from all addresses.
const UNKNOWN_MAX: usize = 256;
/// What these may have sent together of messages that are larger than most.
const UNKNOWN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connections in all.
const CONNECTIONS_MAX: usize = 10_000;
/// A peer must shake hands within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that shook hands must say what it is within this time.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// A Client that is told of a million results at once does not read for a minute, and the kernel counts that as silence.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(300);
/// A network may be cut for half a minute. What was sent then is sent again after twice the time it took last.
const WORKER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a worker waits for its pod to become known.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer document, such as a million keys that a Client wants, is read beside the loop of the namespace.
const DECODED_HERE_MAX: usize = 1024 * 1024;
const ADMISSION_PAUSE: Duration = Duration::from_millis(200);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Reception {
    pub(crate) events: mpsc::Sender<Event>,
    /// For what somebody waits to be answered.
    pub(crate) requests: mpsc::Sender<Event>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) tls: Option<Tls>,
    pub(crate) fence: Fence,
    pub(crate) guests: Arc<Guests>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) recording: Recording,
}

/// Counts connections by how far they are known, and numbers what they ask.
#[derive(Debug)]
pub(crate) struct Guests {
    counts: Mutex<Counts>,
    calls: AtomicU64,
    budget: Budget,
    /// Of what is told about peers that were dropped, and about workers that were refused.
    dropped: Throttle,
    refused: Throttle,
    quarantine: Quarantine,
}

impl Default for Guests {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            calls: AtomicU64::default(),
            budget: Budget::new(UNKNOWN_BYTES_MAX),
            dropped: Throttle::default(),
            refused: Throttle::default(),
            quarantine: Quarantine::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    unknown: BTreeMap<IpAddr, usize>,
    /// Streams of workers and Clients: their hosts may send large requests.
    registered: BTreeMap<IpAddr, usize>,
}

/// Why a connection ends without a word to the peer.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error(transparent)]
    Comm(#[from] CommError),
    #[error("bad framing")]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Feed(#[from] feed::Error),
    #[error("a message cannot be read")]
    Document(#[from] DocumentError),
    #[error("no message within {} s of the handshake", FIRST_MESSAGE_TIMEOUT.as_secs())]
    Silent,
}

impl Guests {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a request.
    fn next_call(&self) -> CallId {
        CallId(self.calls.fetch_add(1, Ordering::Relaxed))
    }

    /// Lets one more unknown peer in, if there is room.
    fn enter(self: &Arc<Self>, host: IpAddr) -> Option<Unknown> {
        let mut counts = self.counts();
        let here = counts.unknown.get(&host).copied().unwrap_or_default();
        let everywhere: usize = counts.unknown.values().sum();
        let is_crowded = (here >= UNKNOWN_A_HOST_MAX && !host.is_loopback()) || everywhere >= UNKNOWN_MAX;
        if is_crowded || counts.connections >= CONNECTIONS_MAX {
            return None;
        }
        counts.connections += 1;
        *counts.unknown.entry(host).or_default() += 1;
        Some(Unknown { guests: Arc::clone(self), host, is_known: false })
    }

    fn is_host_of_registered(&self, host: IpAddr) -> bool {
        self.counts().registered.contains_key(&host)
    }

    fn register(self: &Arc<Self>, host: IpAddr) -> Registered {
        *self.counts().registered.entry(host).or_default() += 1;
        Registered { guests: Arc::clone(self), host }
    }
}

/// Holds the place of a connection; gives it back when dropped.
struct Unknown {
    guests: Arc<Guests>,
    host: IpAddr,
    is_known: bool,
}

impl Unknown {
    /// The peer has said what it is: its place among the unknown is free.
    fn is_known(&mut self) {
        if !std::mem::replace(&mut self.is_known, true) {
            decrement(&mut self.guests.counts().unknown, self.host);
        }
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        self.is_known();
        self.guests.counts().connections -= 1;
    }
}

struct Registered {
    guests: Arc<Guests>,
    host: IpAddr,
}

impl Drop for Registered {
    fn drop(&mut self) {
        decrement(&mut self.guests.counts().registered, self.host);
    }
}

fn decrement(counts: &mut BTreeMap<IpAddr, usize>, host: IpAddr) {
    if let Some(count) = counts.get_mut(&host) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&host);
        }
    }
}

/// Accepts connections for as long as the socket lives.
pub(crate) async fn accept_loop(listener: TcpListener, reception: Reception) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match reception.guests.enter(peer.ip()) {
                Some(place) => {
                    tokio::spawn(serve(stream, peer, reception.clone(), place));
                }
                None => debug!(%peer, "too many connections that have not said what they are"),
            },
            Err(error) => {
                // Out of file descriptors, most likely: others may close meanwhile.
                warn!(%error, "failed to accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, reception: Reception, mut place: Unknown) {
    let Err(error) = converse(stream, peer, &reception, &mut place).await else { return };
    let reason = chain(&error);
    match reception.guests.dropped.pass(Instant::now()) {
        Some(others) => info!(%peer, reason, others, "dropped a connection"),
        None => return debug!(%peer, reason, "dropped a connection"),
    }
    // A worker that is not encrypted like us gets no answer: then its status must say what is wrong.
    let is_stranger = matches!(error, Dropped::Comm(CommError::Stranger(_) | CommError::Encrypted));
    if let Some(worker) = reception.admission.expected_at(peer.ip()).filter(|_| is_stranger) {
        // The receiver is gone when the server ends, and with it whoever would want to know.
        let _ = reception.events.send(Event::WorkerRefused(Refusal { worker, reason })).await;
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, reception: &Reception, place: &mut Unknown) -> Result<(), Dropped> {
    let mut connection = Connection::accept(stream, reception.tls.as_ref(), HANDSHAKE_TIMEOUT).await?;
    connection.sender.fence(&reception.fence);
    if reception.guests.is_host_of_registered(peer.ip()) {
        connection.receiver.set_limits(Limits::REGISTERED);
    } else {
        connection.receiver.share(Some(&reception.guests.budget));
    }
    let first = timeout(FIRST_MESSAGE_TIMEOUT, connection.receiver.receive()).await.map_err(|_| Dropped::Silent)??;
    let Some(first) = first else { return Ok(()) };
    let first = Request::decode(first)?;
    place.is_known();
    match first.op() {
        RegisterWorker::OP => worker_stream(&first, connection, reception).await,
        RegisterClient::OP => client_stream(&first, connection, reception).await,
        "feed" => Ok(feed::serve(&first, connection.receiver, connection.sender, &reception.events).await?),
        "register_nanny" => Ok(nannies::serve(connection, &reception.events).await?),
        "subscribe_worker_status" => Ok(onlookers::serve(connection, &reception.events).await?),
        _ => requests(first, connection, reception).await,
    }
}

/// Answers requests one after the other until the peer closes.
async fn requests(first: Request, connection: Connection, reception: &Reception) -> Result<(), Dropped> {
    let Connection { mut receiver, mut sender, peer } = connection;
    let mut request = first;
    loop {
        let (reply, close) = (request.reply, request.close);
        if request.op() == "close" {
            if reply {
                sender.send(Value::from("OK").encode()).await?;
            }
            return Ok(());
        }
        let call = reception.guests.next_call();
        let (answer, mut answered) = oneshot::channel();
        let answer = Answer { call, sender: answer };
        if reception.requests.send(Event::Asked { request: Box::new(request), peer: peer.ip(), answer }).await.is_err() {
            return Ok(());
        }
        // Nobody says more before an answer: what arrives is the end of the comm, or a mistake.
        let chunks = tokio::select! {
            biased;
            chunks = &mut answered => chunks,
            _ = receiver.receive() => {
                // The receiver is gone when the server ends.
                let _ = reception.requests.send(Event::CallerGone { call }).await;
                return Ok(());
            }
        };
        // Dropped unanswered when the server ends.
        let Ok(chunks) = chunks else { return Ok(()) };
        if reply {
            sender.send(chunks).await?;
        }
        if close {
            return Ok(());
        }
        if reception.guests.is_host_of_registered(peer.ip()) {
            receiver.share(None);
            receiver.set_limits(Limits::REGISTERED);
        }
        let Some(message) = receiver.receive().await? else { return Ok(()) };
        request = Request::decode(message)?;
    }
}

async fn worker_stream(first: &Request, connection: Connection, reception: &Reception) -> Result<(), Dropped> {
    let Connection { mut receiver, mut sender, peer } = connection;
    let (registration, facts) = match admit(first, peer, reception).await {
        Ok(admitted) => admitted,
        Err(reason) => {
            sender.send(rpc::refused(unix_seconds(), &reason).encode()).await?;
            let Some(others) = reception.guests.refused.pass(Instant::now()) else { return Ok(()) };
            warn!(%peer, %reason, others, "refused a worker");
            // Its fields may be those of another release, or none.
            let name = first.fields().optional_value("name").ok();
            let worker = name.as_ref().and_then(Value::as_text).map_or_else(|| peer.ip().to_string(), exception_text);
            // The receiver is gone when the server ends, and with it whoever would want to know.
            let _ = reception.events.send(Event::WorkerRefused(Refusal { worker, reason })).await;
            return Ok(());
        }
    };
    receiver.share(None);
    receiver.set_limits(Limits::REGISTERED);
    sender.give_up_after(WORKER_TIMEOUT).map_err(CommError::Io)?;
    let _registered = reception.guests.register(peer.ip());
    let versions = first.fields().optional_value("versions")?;
    let arrival = Box::new(Arrival { registration, versions, facts, outbox: Outbox::start(sender), peer: peer.ip() });
    let (answer, answered) = oneshot::channel();
    if reception.events.send(Event::WorkerRegisters { arrival, answer }).await.is_err() {
        return Ok(());
    }
    let Ok(Some(worker)) = answered.await else { return Ok(()) };
    let recording = reception.recording.clone();
    let read = move |message: &Message, (messages, records): &mut (Vec<FromWorker>, Vec<Value>)| {
        append(messages, FromWorker::decode_batch(message)?);
        records.extend(recording.records(message));
        Ok(())
    };
    let wrap = |(messages, records)| Event::WorkerSays { worker, messages, records };
    let result = read_stream(&mut receiver, &reception.events, read, wrap).await;
    if matches!(result, Err(Dropped::Document(_) | Dropped::Frame(_) | Dropped::Comm(CommError::Frame(_)))) {
        reception.guests.quarantine.strike(peer.ip(), Instant::now());
    }
    // The receiver is gone when the server ends, and with it whoever would want to know.
    let _ = reception.events.send(Event::WorkerGone { worker }).await;
    result
}

/// Whether a worker may register; else why not.
async fn admit(request: &Request, peer: SocketAddr, reception: &Reception) -> Result<(RegisterWorker, Facts), String> {
    request.release().map_err(|error| chain(&error))?;
    let registration = RegisterWorker::read(request).map_err(|error| chain(&error))?;
    if let Some(left) = reception.guests.quarantine.keeps_out(peer.ip(), Instant::now()) {
        let reason = "workers of this host have broken the protocol several times; they are let in again in";
        return Err(format!("{reason} {} s", left.as_secs()));
    }
    // Others would fetch from there, encrypted or not.
    let (address, scheme) = (&registration.address, scheme(reception.tls.as_ref()));
    if address.scheme() != scheme {
        return Err(format!("the worker says that it listens on {address}, and comms are {scheme}:// here"));
    }
    // They are shown in places where control characters and long texts do harm.
    for text in [&registration.name, address.as_str()] {
        if exception_text(text) != *text {
            return Err("the worker's name or address has control characters, or is too long".to_owned());
        }
    }
    let mut waited = Duration::ZERO;
    loop {
        match reception.admission.admit(peer.ip(), &registration.name, registration.address.host()) {
            Verdict::Admitted(facts) => {
                rivals::settle(&registration, peer.ip(), reception).await?;
                return Ok((registration, facts));
            }
            Verdict::Refused(reason) => return Err(reason),
            Verdict::NotYet(reason) if waited >= ADMISSION_TIMEOUT => return Err(reason),
            Verdict::NotYet(_) => {}
        }
        sleep(ADMISSION_PAUSE).await;
        waited += ADMISSION_PAUSE;
    }
}

async fn client_stream(first: &Request, connection: Connection, reception: &Reception) -> Result<(), Dropped> {
    let Connection { mut receiver, mut sender, peer } = connection;
    let registration = RegisterClient::read(first)?;
    if let Err(error) = first.release() {
        let error = chain(&error);
        info!(%peer, client = %registration.client, %error, "refused a Client");
        let start = ToClient::StreamStart { warning: String::new(), error };
        return Ok(sender.send(encode_batch(&[start])).await?);
    }
    receiver.share(None);
    receiver.set_limits(Limits::REGISTERED);
    sender.give_up_after(CLIENT_TIMEOUT).map_err(CommError::Io)?;
    let _registered = reception.guests.register(peer.ip());
    let (answer, answered) = oneshot::channel();
    let versions = first.fields().optional_value("versions")?;
    let registers = Event::ClientRegisters { name: registration.client, versions, outbox: Outbox::start(sender), answer };
    if reception.events.send(registers).await.is_err() {
        return Ok(());
    }
    let Ok(client) = answered.await else { return Ok(()) };
    let read = |message: &Message, messages: &mut Vec<FromClient>| {
        append(messages, FromClient::decode_batch(message)?);
        Ok(())
    };
    let wrap = |messages| Event::ClientSays { client, messages };
    let result = read_stream(&mut receiver, &reception.events, read, wrap).await;
    let _ = reception.events.send(Event::ClientGone { client }).await;
    result
}

/// Passes on what a peer says, in batches, until it closes or the server ends.
async fn read_stream<S: Default + Send + 'static>(
    receiver: &mut Receiver,
    events: &mpsc::Sender<Event>,
    read: impl Fn(&Message, &mut S) -> Result<(), DocumentError> + Clone + Send + 'static,
    wrap: impl Fn(S) -> Event,
) -> Result<(), Dropped> {
    while let Some(message) = receiver.receive().await? {
        let mut said = S::default();
        if message.document().len() > DECODED_HERE_MAX {
            let read = read.clone();
            // Given up only when the server ends.
            let Ok(decoded) = spawn_blocking(move || read(&message, &mut said).map(|()| said)).await else { break };
            said = decoded?;
        } else {
            read(&message, &mut said)?;
        }
        // What came before what cannot be read was said.
        let rest = read_arrived(receiver, &read, &mut said);
        if events.send(wrap(said)).await.is_err() {
            break;
        }
        rest?;
    }
    Ok(())
}

/// Reads what has arrived together with a message.
fn read_arrived<S>(
    receiver: &mut Receiver,
    read: &impl Fn(&Message, &mut S) -> Result<(), DocumentError>,
    said: &mut S,
) -> Result<(), Dropped> {
    while let Some(message) = receiver.take_arrived()? {
        read(&message, said)?;
    }
    Ok(())
}

fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}
