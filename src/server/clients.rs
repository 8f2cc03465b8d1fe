//! The Clients that registered with one namespace.
//!
//! A Client's messages take effect in the order sent: while one of its graphs is lowered on a worker, what it says
//! next waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tracing::{info, warn};

use crate::comm::Outbox;
use crate::dask::{ClientName, TaskKey, TimedeltaError, parse_timedelta};
use crate::engine::{ClientId, Requirements, Stimulus};
use crate::server::build_document::BuildDocument;
use crate::server::builder::{self, BUILDERS_LOST_MAX, BuildFailure};
use crate::server::datasets::Flushes;
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::server::versions::mismatches;
use crate::server::workers::heartbeat_interval;
use crate::wire::encode::{Batch, encode_batch};
use crate::wire::messages::{FromClient, ToClient, UpdateGraph};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Who wants keys for as long as their tasks run, and no longer.
const FIRE_AND_FORGET: &str = "fire-and-forget";
/// Clients say so many times less often than workers that they are there.
const HEARTBEAT_FACTOR: f64 = 10.0;

/// All who can want keys, by number: connected Clients, and names that stand for published data.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    entries: BTreeMap<ClientId, Client>,
    /// Wanters without a comm: `fire-and-forget`, `published-…`.
    standing: BTreeMap<String, ClientId>,
    next: u32,
    unflushed: BTreeSet<ClientId>,
}

/// One connected Client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: ClientName,
    outbox: Outbox,
    /// What it is told at the end of the turn.
    batch: Batch,
    lowering: Option<Lowering>,
    /// What it said after the graph that is being lowered.
    later: VecDeque<FromClient>,
    pub(crate) flushes: Flushes,
}

/// A graph on its way to the engine.
#[derive(Debug)]
struct Lowering {
    graph: Arc<UpdateGraph>,
    is_under_way: bool,
    builders_lost: u32,
    /// Its Client has been told to forget it.
    is_dropped: bool,
}

impl Clients {
    fn number(&mut self) -> ClientId {
        self.next += 1;
        ClientId(self.next - 1)
    }

    /// The number of a wanter that has no comm.
    pub(crate) fn standing(&mut self, name: &str) -> ClientId {
        if let Some(id) = self.standing.get(name) {
            return *id;
        }
        let id = self.number();
        self.standing.insert(name.to_owned(), id);
        id
    }

    /// A wanter without a comm wants nothing any more; gives its number if it had one.
    pub(crate) fn end_standing(&mut self, name: &str) -> Option<ClientId> {
        self.standing.remove(name)
    }

    pub(crate) fn is_fire_and_forget(&self, client: ClientId) -> bool {
        self.standing.get(FIRE_AND_FORGET) == Some(&client)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<ClientId> {
        self.entries.iter().find(|(_, client)| client.name.as_str() == name).map(|(id, _)| *id)
    }

    /// Under which name a Client registered; none for who has no comm.
    pub(crate) fn name_of(&self, client: ClientId) -> String {
        self.entries.get(&client).map_or_else(String::new, |client| client.name.as_str().to_owned())
    }

    pub(crate) fn get_mut(&mut self, client: ClientId) -> Option<&mut Client> {
        self.entries.get_mut(&client)
    }

    /// Whether all that was said before a flush has taken effect; of an unknown Client, if it was any's.
    pub(crate) fn has_flushed(&self, client: Option<ClientId>, uid: &str) -> bool {
        match client {
            Some(client) => self.entries.get(&client).is_none_or(|client| client.flushes.contains(uid)),
            None => self.entries.values().any(|client| client.flushes.contains(uid)),
        }
    }

    /// All, connected or not.
    pub(crate) fn all(&self) -> Vec<ClientId> {
        self.entries.keys().chain(self.standing.values()).copied().collect()
    }

    /// Graphs that are not in the engine yet will not get there.
    pub(crate) fn drop_graphs(&mut self, client: ClientId) {
        let Some(entry) = self.entries.get_mut(&client) else { return };
        entry.later.retain(|message| !message.is_about_keys());
        match &mut entry.lowering {
            Some(lowering) if lowering.is_under_way => lowering.is_dropped = true,
            lowering => *lowering = None,
        }
    }

    /// Queues a message until the end of the turn; who has no comm is not told.
    pub(crate) fn tell(&mut self, client: ClientId, message: &ToClient) {
        if let Some(entry) = self.entries.get_mut(&client) {
            if entry.batch.is_empty() {
                self.unflushed.insert(client);
            }
            entry.batch.push(message);
        }
    }

    /// Writes one batch to each Client that has messages waiting; gives those that do not take it.
    pub(crate) fn flush(&mut self) -> Vec<ClientId> {
        let mut lost = Vec::new();
        for id in std::mem::take(&mut self.unflushed) {
            let Some(client) = self.entries.get_mut(&id) else { continue };
            if client.outbox.is_backlogged() && !client.batch.is_full() {
                self.unflushed.insert(id);
                continue;
            }
            if client.outbox.push(client.batch.take()).is_err() {
                warn!(client = %client.name, "the Client does not take its messages");
                lost.push(id);
            }
        }
        lost
    }
}

impl Namespace {
    pub(crate) fn on_client_registers(&mut self, name: ClientName, versions: &Value, mut outbox: Outbox) -> ClientId {
        let id = self.clients.number();
        info!(client = %name, "a Client connected");
        let warning = mismatches("Client", versions, self.workers.versions());
        let start = ToClient::StreamStart { warning, error: String::new() };
        // In a batch of its own. A Client that is gone already is noticed by its reader.
        let _ = outbox.push(encode_batch(&[start]));
        let client =
            Client { name, outbox, batch: Batch::default(), lowering: None, later: VecDeque::new(), flushes: Flushes::default() };
        let name = client.name.clone();
        self.clients.entries.insert(id, client);
        self.note(&["all", name.as_str()], "add-client", [("client", name.as_str().into())]);
        id
    }

    pub(crate) fn on_client_says(&mut self, client: ClientId, messages: Vec<FromClient>) {
        let Some(entry) = self.clients.entries.get_mut(&client) else { return };
        if entry.later.is_empty() {
            entry.later = messages.into();
        } else {
            entry.later.extend(messages);
        }
        self.take_in_turn(client);
    }

    /// Takes what a Client said, up to a graph that must be lowered first.
    fn take_in_turn(&mut self, client: ClientId) {
        loop {
            let Some(entry) = self.clients.entries.get_mut(&client) else { return };
            if entry.lowering.is_some() {
                return;
            }
            let Some(message) = entry.later.pop_front() else {
                // It may have said much: a message for each of a million keys.
                entry.later = VecDeque::new();
                return;
            };
            self.on_client_message(client, message);
        }
    }

    fn on_client_message(&mut self, client: ClientId, message: FromClient) {
        match message {
            FromClient::UpdateGraph(graph) => self.on_update_graph(client, graph),
            FromClient::ClientDesiresKeys { keys, client: other } => {
                let client = self.on_behalf(client, other);
                self.hear(Stimulus::ClientDesiresKeys { client, keys });
            }
            FromClient::ClientReleasesKeys { keys, client: other } => {
                let client = self.on_behalf(client, other);
                self.hear(Stimulus::ClientReleasesKeys { client, keys });
            }
            // Desiring a key again makes the engine say its state, and changes nothing else.
            FromClient::ReportKey { key } => self.stimulate(Stimulus::ClientDesiresKeys { client, keys: vec![key] }),
            FromClient::CancelKeys { keys, force, reason: _, msg: _ } => {
                let name = self.clients.name_of(client);
                self.note(&[&name], "cancel", [("count", (keys.len() as u64).into()), ("force", force.into())]);
                self.stimulate(Stimulus::CancelKeys { client, keys, force });
            }
            FromClient::HeartbeatClient => {
                let interval = heartbeat_interval(self.clients.entries.len()) * HEARTBEAT_FACTOR;
                self.clients.tell(client, &ToClient::AdjustHeartbeatInterval { interval });
            }
            FromClient::CloseClient | FromClient::CloseStream => self.on_client_gone(client),
            FromClient::SubscribeTopic { topic } => self.topics.subscribe(&topic, client),
            FromClient::UnsubscribeTopic { topic } => self.topics.unsubscribe(&topic, client),
            FromClient::PublishFlushBatchedSend { uid } => self.on_publish_flush(client, uid),
            FromClient::LogEvent { topics, msg } => self.log_event(&topics, &msg),
            FromClient::VariableDelete { name } => self.on_variable_delete(&name),
            FromClient::VariableFutureReceivedConfirm { name, key, token } => {
                self.on_variable_confirm(client, &name, key, &token);
            }
            FromClient::QueueRelease { name } => self.on_queue_release(&name),
            FromClient::QueueFutureRelease { name, key } => self.on_queue_confirm(client, &name, key),
            FromClient::Unknown { op } => self.count_unknown_op(&op),
        }
    }

    /// Who is meant: the Client itself, or `fire-and-forget`; nobody may speak for another Client.
    fn on_behalf(&mut self, client: ClientId, other: Option<ClientName>) -> ClientId {
        match other {
            Some(name) if name.as_str() == FIRE_AND_FORGET => self.clients.standing(FIRE_AND_FORGET),
            _ => client,
        }
    }

    fn on_update_graph(&mut self, client: ClientId, graph: Box<UpdateGraph>) {
        // Without keys a Client only looks a task up; there is nothing to run.
        if graph.keys.is_empty() {
            return;
        }
        let Some(entry) = self.clients.entries.get_mut(&client) else { return };
        entry.lowering = Some(Lowering { graph: Arc::new(*graph), is_under_way: false, builders_lost: 0, is_dropped: false });
        self.start_lowering();
    }

    /// Sends graphs that wait to be lowered to workers, where there is one.
    pub(crate) fn start_lowering(&mut self) {
        let is_waiting = |client: &Client| client.lowering.as_ref().is_some_and(|lowering| !lowering.is_under_way);
        if !self.clients.entries.values().any(is_waiting) {
            return;
        }
        let Some(worker) = self.engine.choose_lowerer() else { return };
        for (id, client) in &mut self.clients.entries {
            let Some(lowering) = client.lowering.as_mut().filter(|lowering| !lowering.is_under_way) else { continue };
            let Some(builder) = self.workers.builder(worker, lowering.builders_lost > 0) else { return };
            lowering.is_under_way = true;
            let graph = Arc::clone(&lowering.graph);
            let (pool, events, client) = (Arc::clone(&self.pool), self.events.clone(), *id);
            self.pool.spawn(async move {
                let result = builder::lower(&pool, &builder, graph).await.map(Box::new);
                // The loop has ended when nobody takes it.
                let _ = events.send(Event::Lowered { client, result }).await;
            });
        }
    }

    /// A Client's graph is lowered, or cannot be.
    pub(crate) fn on_lowered(&mut self, client: ClientId, result: Result<Box<BuildDocument>, BuildFailure>) {
        let Some(entry) = self.clients.entries.get_mut(&client) else { return };
        let Some(mut lowering) = entry.lowering.take() else { return };
        if lowering.is_dropped {
            return self.take_in_turn(client);
        }
        match result {
            Err(BuildFailure::BuilderLost { reason }) if lowering.builders_lost + 1 < BUILDERS_LOST_MAX => {
                info!(client = %entry.name, %reason, "the worker was lost while it lowered a graph");
                lowering.builders_lost += 1;
                lowering.is_under_way = false;
                entry.lowering = Some(lowering);
                return self.start_lowering();
            }
            Err(BuildFailure::BuilderLost { reason }) => {
                let text = format!("{BUILDERS_LOST_MAX} workers were lost while they lowered the graph; the last: {reason}");
                let exception = Value::Binary(Object::runtime_error(&text).dumps());
                self.refuse_graph(client, &lowering.graph.keys.keys(), &exception);
            }
            Err(BuildFailure::Refused { error, exception }) => {
                let exception = exception.unwrap_or_else(|| Object::runtime_error(&error.message).dumps());
                self.refuse_graph(client, &lowering.graph.keys.keys(), &Value::Binary(exception));
            }
            Ok(document) => {
                let UpdateGraph { keys, submitting_task, fifo_timeout, .. } = Arc::unwrap_or_clone(lowering.graph);
                let Some(fifo_timeout_ms) = fifo_timeout_ms(&fifo_timeout) else {
                    let exception = Object::value_error(&format!("fifo_timeout {TimedeltaError}"));
                    self.refuse_graph(client, &keys.keys(), &Value::Binary(exception.dumps()));
                    return self.take_in_turn(client);
                };
                drop(keys);
                let requirements = Requirements { fifo_timeout_ms, ..Requirements::default() };
                let BuildDocument { graph, wanted, shuffles, .. } = *document;
                let metrics = Value::map([("tasks", (graph.tasks.len() as u64).into())]);
                self.note_graph(client, "OK", [("metrics", metrics)]);
                self.shuffles.declare(shuffles);
                self.stimulate(Stimulus::UpdateGraph { client, graph, wanted, requirements, submitting_task });
            }
        }
        self.take_in_turn(client);
    }

    fn refuse_graph(&mut self, client: ClientId, keys: &[TaskKey], exception: &Value) {
        self.note_graph(client, "error", []);
        for key in keys {
            let erred = ToClient::TaskErred { key: key.clone(), exception: exception.clone(), traceback: Value::Nil };
            self.clients.tell(client, &erred);
        }
    }

    /// Notes what became of a graph.
    fn note_graph<const MORE: usize>(&mut self, client: ClientId, status: &str, more: [(&str, Value); MORE]) {
        let name = self.clients.name_of(client);
        let fields = [("status", Value::from(status))].into_iter().chain(more);
        self.note(&["scheduler", &name], "update-graph", fields);
    }

    /// A Client has left; what only it wanted is let go.
    pub(crate) fn on_client_gone(&mut self, client: ClientId) {
        let Some(entry) = self.clients.entries.remove(&client) else { return };
        info!(client = %entry.name, "a Client left");
        self.note(&["all", entry.name.as_str()], "remove-client", [("client", entry.name.as_str().into())]);
        self.clients.unflushed.remove(&client);
        self.topics.forget(client);
        self.samplers.forget(client);
        self.datasets.forget(client);
        self.on_reader_left(client);
        self.stimulate(Stimulus::ClientLeft { client });
    }
}

/// The FIFO timeout of a Client, which is a text or a number of seconds; None if it is neither.
fn fifo_timeout_ms(value: &Value) -> Option<u64> {
    let seconds = match value {
        Value::Text(text) => parse_timedelta(text).ok(),
        other => other.as_number(),
    };
    // What is no number and what is too large for one are in no range.
    seconds.filter(|seconds| (0.0..f64::INFINITY).contains(seconds)).map(|seconds| (seconds * 1e3) as u64)
}
