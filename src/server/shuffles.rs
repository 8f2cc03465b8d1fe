//! Peer-to-peer shuffles: what workers ask about them, and what the engine has to know.
//!
//! ```text
//! transfer runs ─► shuffle_get_or_create ─► a run; the engine places the outputs
//! data arrives  ─► shuffle_get           ─► the same run
//! barrier runs  ─► shuffle_barrier       ─► shuffle_inputs_done to all that take part; the answer when all of them have sent all
//! output runs where its data is not ─► shuffle_restrict_task
//! barrier goes, or a worker does    ─► shuffle-fail to all that take part
//! ```
//!
//! Source: distributed 2026.8.0, shuffle/_worker_plugin.py, shuffle/_core.py.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::comm::{CallError, Pool};
use crate::dask::{ShuffleId, TaskKey, WorkerAddress};
use crate::engine::Stimulus;
use crate::error::chain;
use crate::server::call;
use crate::server::event::{Answer, Event};
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::shuffle::{Refusal, Run};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::encode::encode_message;
use crate::wire::messages::rpc::failed;
use crate::wire::messages::{Ask, Request, ToWorker};
use crate::wire::opaque::Pickled;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Workers that cannot be reached are asked again after this time, until they can or are gone.
const UNREACHED_PAUSE: Duration = Duration::from_millis(100);

/// A barrier that waits until all workers have sent what they have.
#[derive(Debug)]
pub(crate) struct Flush {
    id: ShuffleId,
    run: u64,
    answer: Answer,
}

/// What workers said to `shuffle_inputs_done`.
#[derive(Debug)]
pub(crate) struct Flushed {
    flush: Flush,
    /// These did not say anything.
    unreached: Vec<WorkerAddress>,
    /// This is what one of the others said.
    failure: Option<String>,
}

impl Namespace {
    pub(crate) fn on_shuffle_request(&mut self, request: &Request, peer: IpAddr) -> Result<Reply, DocumentError> {
        let fields = request.fields();
        let result = match request.op() {
            "shuffle_barrier" => return self.on_barrier(&fields),
            "shuffle_get" => {
                let id = ShuffleId::new(fields.text("id")?);
                let worker = fields.address("worker")?;
                self.knows_worker(peer, &worker).and_then(|()| self.shuffles.join(&id, &worker).map(run_spec))
            }
            "shuffle_get_or_create" => {
                let id = ShuffleId::new(fields.text("shuffle_id")?);
                let (key, worker) = (fields.key("key")?, fields.address("worker")?);
                self.knows_worker(peer, &worker).and_then(|()| self.join_or_start(&id, &key, &worker))
            }
            _ => {
                let (id, run) = (ShuffleId::new(fields.text("id")?), fields.unsigned("run_id")?);
                self.restrict(&id, run, fields.key("key")?, &fields.address("worker")?)
            }
        };
        Ok(result.unwrap_or_else(|refusal| refused(&refusal)).into())
    }

    /// Nobody may speak for another.
    fn knows_worker(&self, peer: IpAddr, address: &WorkerAddress) -> Result<(), Refusal> {
        match self.worker_of(peer, address) {
            Some(_) => Ok(()),
            None => Err(Refusal::UnknownWorker { worker: address.clone() }),
        }
    }

    /// The present run; a new one if there is none, and a transfer asks that is meant to run.
    fn join_or_start(&mut self, id: &ShuffleId, key: &TaskKey, worker: &WorkerAddress) -> Result<Value, Refusal> {
        if let Ok(run) = self.shuffles.join(id, worker) {
            return Ok(run_spec(run));
        }
        let barrier = id.barrier();
        if !self.engine.knows(&barrier) {
            return Err(Refusal::Unknown { id: id.clone() });
        }
        match self.engine.task_state(key) {
            Some("processing") => {}
            state => return Err(Refusal::NotProcessing { key: key.clone(), state: state.unwrap_or("unknown") }),
        }
        let aligned: Vec<ShuffleId> = self.engine.needed_beside(&barrier).iter().filter_map(ShuffleId::of_barrier).collect();
        let makers = self.engine.workers_for_shuffle(&barrier);
        let makers = makers.into_iter().filter_map(|id| Some(self.workers.get(id)?.address.clone())).collect();
        let run = self.shuffles.start(id, worker, makers, &aligned)?;
        debug!(shuffle = %id, run = run.number(), workers = run.makers().len(), "a shuffle begins");
        let spec = run_spec(run);
        let places = run.places_of_outputs();
        let outputs = places.filter_map(|(output, maker)| Some((output.clone(), self.workers.by_address(maker)?))).collect();
        self.stimulate(Stimulus::ShufflePlaced { outputs });
        Ok(spec)
    }

    /// An output that ran where its data is not is to run where it is.
    fn restrict(&mut self, id: &ShuffleId, run: u64, key: TaskKey, maker: &WorkerAddress) -> Result<Value, Refusal> {
        self.shuffles.check(id, run)?;
        if let Some(maker) = self.workers.by_address(maker)
            && self.engine.needs(&key, &id.barrier())
        {
            self.stimulate(Stimulus::ShufflePlaced { outputs: vec![(key, maker)] });
        }
        Ok(Value::map([("status", "OK".into())]))
    }

    fn on_barrier(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let (id, number) = (ShuffleId::new(fields.text("id")?), fields.unsigned("run_id")?);
        let run = match self.shuffles.check(&id, number) {
            Ok(run) => run,
            Err(refusal) => return Ok(failed(&Object::value_error(&refusal.to_string()), &refusal.to_string()).into()),
        };
        if !fields.boolean("consistent")? {
            // Some of the inputs were sent in an earlier run, and are gone with it.
            self.restart_shuffle(&id);
            return Ok(Value::Nil.into());
        }
        let workers = run.participants().cloned().collect();
        Ok(Reply::later(move |namespace, answer| {
            namespace.flush_shuffle(Flush { id, run: number, answer }, workers, Duration::ZERO);
        }))
    }

    fn restart_shuffle(&mut self, id: &ShuffleId) {
        if let Some(run) = self.shuffles.end(id) {
            info!(shuffle = %id, run = run.number(), "a shuffle begins anew: its inputs are of more than one run");
            self.fail_on_workers(&run, "its inputs are of more than one run");
            self.stimulate(Stimulus::ShuffleRestarted { barrier: id.barrier() });
        }
    }

    fn flush_shuffle(&self, flush: Flush, workers: Vec<WorkerAddress>, pause: Duration) {
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            sleep(pause).await;
            let flushed = ask_to_flush(&pool, flush, workers).await;
            // The loop has ended when nobody takes it.
            let _ = events.send(Event::Flushed(flushed)).await;
        });
    }

    /// Workers have sent all that they had, or cannot be reached.
    pub(crate) fn on_flushed(&mut self, flushed: Flushed) {
        let Flushed { flush, unreached, failure } = flushed;
        let failure = failure.or_else(|| self.shuffles.check(&flush.id, flush.run).err().map(|refusal| refusal.to_string()));
        let reply = match failure {
            Some(text) => failed(&Object::runtime_error(&text), &text),
            None if unreached.is_empty() => Value::Nil,
            // One that is gone is no part of a run that is present.
            None => return self.flush_shuffle(flush, unreached, UNREACHED_PAUSE),
        };
        call::reply(flush.answer, &reply);
    }

    /// Nobody needs a shuffle any more, or it failed.
    pub(crate) fn on_shuffle_over(&mut self, barrier: &TaskKey) {
        if let Some(run) = ShuffleId::of_barrier(barrier).and_then(|id| self.shuffles.end(&id)) {
            debug!(shuffle = %run.id(), run = run.number(), "a shuffle is over");
            self.fail_on_workers(&run, "it is over");
        }
    }

    /// Gives up the shuffles that a worker took part in which is gone; gives their barriers.
    pub(crate) fn give_up_shuffles_of(&mut self, worker: &WorkerAddress) -> Vec<TaskKey> {
        let runs = self.shuffles.worker_left(worker);
        for run in &runs {
            info!(shuffle = %run.id(), run = run.number(), %worker, "a shuffle begins anew: a worker that took part in it left");
            self.fail_on_workers(run, &format!("the worker {worker} left"));
        }
        runs.iter().map(|run| run.id().barrier()).collect()
    }

    /// Has workers drop what they have of a run.
    fn fail_on_workers(&mut self, run: &Run, why: &str) {
        let message = format!("run {} of the shuffle {} was given up: {why}", run.number(), run.id());
        let fail = ToWorker::ShuffleFail { shuffle_id: run.id().as_str().to_owned(), run_id: run.number(), message };
        for worker in run.participants() {
            if let Some(worker) = self.workers.by_address(worker) {
                self.workers.tell(worker, &fail);
            }
        }
    }

    /// Forgets the shuffles that no graph has any more.
    pub(crate) fn forget_shuffles(&mut self) {
        if !self.shuffles.is_empty() && self.engine.has_arrived() {
            self.shuffles.forget_unless(|id| self.engine.knows(&id.barrier()));
        }
    }
}

async fn ask_to_flush(pool: &Pool, flush: Flush, workers: Vec<WorkerAddress>) -> Flushed {
    let ask = Ask::new("shuffle_inputs_done").with("shuffle_id", flush.id.as_str()).with("run_id", flush.run);
    let request = encode_message(&ask);
    let answers = join_all(workers.iter().map(|worker| pool.call(worker, request.clone()))).await;
    let (mut unreached, mut failure) = (Vec::new(), None);
    for (worker, answer) in workers.into_iter().zip(answers) {
        match answer.map(|message| Value::decode(&message)) {
            Ok(Ok(Value::Nil)) => {}
            Ok(Ok(said)) => {
                let text = said.get("exception_text").and_then(Value::as_text).unwrap_or("no reason given");
                failure = Some(format!("the worker {worker} cannot end its part of the shuffle {}: {text}", flush.id));
            }
            Ok(Err(error)) => failure = Some(chain(&error)),
            Err(CallError::Unreachable { .. } | CallError::NoAnswer { .. }) => unreached.push(worker),
            Err(error @ CallError::BadAddress { .. }) => failure = Some(chain(&error)),
        }
    }
    Flushed { flush, unreached, failure }
}

fn run_spec(run: &Run) -> Value {
    let spec = Object::shuffle_run_spec(run.number(), run.spec(), run.makers(), run.maker_of());
    Value::map([("status", "OK".into()), ("run_spec", Value::Pickled(Box::new(Pickled::new(&spec.dumps()))))])
}

fn refused(refusal: &Refusal) -> Value {
    let text = refusal.to_string();
    Value::map([
        ("status", "error".into()),
        ("exception", Object::p2p_consistency_error(&text).dumps().into()),
        ("traceback", Value::Nil),
        ("exception_text", text.as_str().into()),
        ("traceback_text", "".into()),
        ("message", text.as_str().into()),
    ])
}
