//! Answers requests: what Clients, workers and nannies ask outside of their streams.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::debug;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{Stimulus, WorkerId, WorkerSelector};
use crate::server::call::{self, OnError, Target};
use crate::server::coordination;
use crate::server::datasets::{Change, Put};
use crate::server::diagnostics;
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::server::plugins::Host;
use crate::server::workers::Worker;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::Request;
use crate::wire::messages::rpc::{self, HeartbeatWorker};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Workers that `identity` describes when the caller does not say how many.
const IDENTITY_WORKERS: i64 = 5;

/// What is known when a handler returns.
pub(crate) enum Reply {
    Now(Value),
    Later(Rest),
}

/// The rest of a handler: what is asked for takes workers, or other messages, and is answered when it can be.
type Rest = Box<dyn FnOnce(&mut Namespace, Answer)>;

impl Reply {
    /// All fields have been read: what comes now always answers.
    pub(crate) fn later(rest: impl FnOnce(&mut Namespace, Answer) + 'static) -> Self {
        Self::Later(Box::new(rest))
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Now(value)
    }
}

impl Namespace {
    /// Answers a request, now or when its work is done.
    pub(crate) fn on_asked(&mut self, request: &Request, peer: IpAddr, answer: Answer) {
        match self.dispatch(request, peer) {
            Ok(Reply::Now(value)) => call::reply(answer, &value),
            Ok(Reply::Later(rest)) => rest(self, answer),
            Err(error) => {
                let text = format!("mainstay cannot read `{}`: {}", request.op(), crate::error::chain(&error));
                debug!(text, "bad request");
                call::reply(answer, &rpc::failed(&Object::value_error(&text), &text));
            }
        }
    }

    fn dispatch(&mut self, request: &Request, peer: IpAddr) -> Result<Reply, DocumentError> {
        let fields = request.fields();
        let value = match request.op() {
            HeartbeatWorker::OP => self.on_heartbeat(HeartbeatWorker::read(request)?, peer),
            "identity" => self.identify(fields.optional_value("n_workers")?.as_integer().unwrap_or(IDENTITY_WORKERS)),
            "who_has" => self.who_has(fields.optional_keys("keys")?),
            "has_what" => self.has_what(&fields)?,
            "processing" => self.by_worker(&fields, |namespace, id, _| keys_value(&namespace.engine.processing(id)))?,
            "ncores" => self.by_worker(&fields, |_, _, worker| u64::from(worker.nthreads).into())?,
            "ncores_running" => self.ncores_running(&fields)?,
            "nbytes" => self.nbytes(fields.optional_keys("keys")?, fields.optional_boolean("summary")?.unwrap_or(true)),
            "get_task_status" => self.task_status(&fields.keys("keys")?),
            "versions" => self.versions(),
            "retry" => self.retry(&fields)?,
            "publish_list" => self.dataset_names(),
            "publish_get" => self.publish_get(&fields)?,
            "events" => {
                let topic = fields.optional_text("topic")?;
                self.topics.events(topic)
            }
            "log_event" => {
                self.log_event(&fields.topics()?, &fields.optional_value("msg")?);
                Value::Nil
            }
            "get_metadata" => self.get_metadata(&fields)?,
            "set_metadata" => self.set_metadata(&fields)?,
            "register_nanny" => rpc::nanny_registered(self.plugins.of(Host::Nanny)),
            "unregister" => {
                if let Some(worker) = self.worker_of(peer, &fields.address("address")?) {
                    self.on_worker_gone(worker);
                }
                "OK".into()
            }
            "set_resources" => {
                if let Some(worker) = self.worker_of(peer, &fields.address("worker")?) {
                    self.set_resources(worker, &fields.numbers_by_name("resources")?);
                }
                "OK".into()
            }
            "set_restrictions" => {
                self.set_restrictions(&fields)?;
                Value::Nil
            }
            "update_data" => {
                self.update_data(&fields)?;
                Value::Nil
            }
            "shuffle_get" | "shuffle_get_or_create" | "shuffle_restrict_task" | "shuffle_barrier" => {
                return self.on_shuffle_request(request, peer);
            }
            "gather" => return self.gather(&fields),
            "scatter" => return self.scatter(&fields),
            "broadcast" => return self.broadcast(&fields),
            "proxy" => return self.proxy(&fields),
            "publish_put" => return self.publish_put(&fields),
            "publish_delete" => return self.changed_datasets(&fields, Change::Delete(names(&fields)?)),
            "publish_wait_flush" => return self.changed_datasets(&fields, Change::Nothing),
            "retire_workers" => return self.retire_workers(&fields),
            "call_stack" => return self.call_stack(&fields),
            "profile" => return self.profile(&fields),
            "worker_logs" => return self.worker_logs(&fields),
            "logs" | "get_logs" => diagnostics::own_logs(),
            "get_story" => self.story(&fields)?,
            "get_runspec" => self.get_runspec(&fields)?,
            "get_error_cause" => self.get_error_cause(&fields)?,
            "run_function" => self.run_function(&fields)?,
            "performance_report" => return self.performance_report(&fields),
            "memory_sampler_start" => self.start_memory_sampler(&fields)?,
            "memory_sampler_stop" => self.stop_memory_sampler(&fields)?,
            "benchmark_hardware" => return Ok(self.benchmark_hardware()),
            "get_cluster_state" => return self.cluster_state(&fields),
            "dump_cluster_state_to_url" => return self.dump_cluster_state(&fields),
            "get_task_prefix_states" => self.prefix_states(),
            "get_task_stream" => self.get_task_stream(&fields)?,
            "get_task_stream_index" => self.get_task_stream_index(),
            "start_task_metadata" => self.start_task_metadata(&fields)?,
            "stop_task_metadata" => self.stop_task_metadata(&fields)?,
            "amm_handler" => self.amm_handler(&fields)?,
            "adaptive_target" => self.adaptive_target(&fields)?,
            "workers_to_close" => self.workers_to_close(&fields)?,
            "replicate" => return self.replicate(&fields),
            "rebalance" => return self.rebalance(&fields),
            "restart" => return self.restart(&fields),
            "restart_workers" => return self.restart_workers(&fields),
            "register_scheduler_plugin" => return self.register_scheduler_plugin(&fields),
            "unregister_scheduler_plugin" => return self.unregister_scheduler_plugin(&fields),
            "register_worker_plugin" => return self.register_plugin(Host::Worker, &fields),
            "unregister_worker_plugin" => return self.unregister_plugin(Host::Worker, &fields),
            "register_nanny_plugin" => return self.register_plugin(Host::Nanny, &fields),
            "unregister_nanny_plugin" => return self.unregister_plugin(Host::Nanny, &fields),
            op if coordination::OPS.contains(&op) => return self.coordinate(&fields),
            op => self.refuse(op),
        };
        Ok(Reply::Now(value))
    }

    /// The worker of an address, if the request comes from its host: nobody may speak for another.
    pub(crate) fn worker_of(&self, peer: IpAddr, address: &WorkerAddress) -> Option<WorkerId> {
        self.workers.by_address(address).filter(|id| self.workers.get(*id).is_some_and(|worker| worker.peer == peer))
    }

    fn gather(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let who_has = fields.keys("keys")?.into_iter().map(|key| (self.engine.who_has(&key), key));
        let wanted = who_has.map(|(holders, key)| (key, holders)).collect();
        let serializers = fields.optional_value("serializers")?;
        Ok(Reply::later(|namespace, answer| call::gather(namespace.pool.clone(), wanted, serializers, answer)))
    }

    fn proxy(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let (worker, message) = (fields.address("worker")?, message_to_pass_on(fields)?);
        Ok(Reply::later(|namespace, answer| call::proxy(namespace.pool.clone(), worker, message, answer)))
    }

    fn broadcast(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let on_error = match OnError::parse(fields.optional_text("on_error")?) {
            Ok(on_error) => on_error,
            Err(text) => return Ok(rpc::failed(&Object::value_error(&text), &text).into()),
        };
        let targets = self.targets(fields, fields.optional_boolean("nanny")?.unwrap_or_default())?;
        let message = message_to_pass_on(fields)?;
        Ok(Reply::later(move |namespace, answer| {
            call::broadcast(namespace.pool.clone(), targets, message, on_error, answer);
        }))
    }

    /// Whom a request means: the workers, or hosts, that it names, or all; or their nannies, where they have one.
    pub(crate) fn targets(&self, fields: &Fields<'_>, nanny: bool) -> Result<Vec<Target>, DocumentError> {
        let mut workers = fields.optional_texts("workers")?;
        if let Some(hosts) = fields.optional_texts("hosts")? {
            let there = self.workers.iter().filter(|(_, worker)| hosts.iter().any(|host| host == worker.address.host()));
            workers.get_or_insert_default().extend(there.map(|(_, worker)| worker.address.as_str().to_owned()));
        }
        let Some(workers) = workers else { return Ok(self.targets_of_all(nanny)) };
        let named = workers.into_iter().map(|named| {
            let address = WorkerAddress::new(named);
            let worker = self.workers.by_address(&address).and_then(|id| self.workers.get(id));
            (address, worker.and_then(|worker| if nanny { worker.nanny.clone() } else { Some(worker.address.clone()) }))
        });
        Ok(named.collect())
    }

    pub(crate) fn target(&self, worker: WorkerId) -> Option<Target> {
        let address = self.workers.get(worker)?.address.clone();
        Some((address.clone(), Some(address)))
    }

    pub(crate) fn targets_of_all(&self, nanny: bool) -> Vec<Target> {
        let called = |worker: &Worker| if nanny { worker.nanny.clone() } else { Some(worker.address.clone()) };
        self.workers.iter().filter_map(|(_, worker)| Some((worker.address.clone(), Some(called(worker)?)))).collect()
    }

    /// The workers that a request names by address, name or host, or all.
    pub(crate) fn selected(&self, fields: &Fields<'_>) -> Result<Vec<(WorkerId, &Worker)>, DocumentError> {
        let named: Option<BTreeSet<String>> = match fields.optional_value("workers")? {
            Value::Nil => None,
            Value::Array(named) => Some(named.iter().filter_map(shown).collect()),
            one => Some(shown(&one).into_iter().collect()),
        };
        let is_named = |worker: &Worker| {
            let names = [worker.address.as_str(), worker.name.as_str(), worker.address.host()];
            named.as_ref().is_none_or(|named| names.iter().any(|name| named.contains(*name)))
        };
        Ok(self.workers.iter().filter(|(_, worker)| is_named(worker)).collect())
    }

    fn by_worker(&self, fields: &Fields<'_>, value: impl Fn(&Self, WorkerId, &Worker) -> Value) -> Result<Value, DocumentError> {
        let selected = self.selected(fields)?;
        Ok(Value::Map(
            selected.into_iter().map(|(id, worker)| (worker.address.as_str().into(), value(self, id, worker))).collect(),
        ))
    }

    /// Of each worker, also of those that are named and not there.
    fn has_what(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let held = |(address, _): Target| {
            let held = self.workers.by_address(&address).map_or_else(Vec::new, |id| self.engine.has_what(id));
            (address.as_str().into(), keys_value(&held))
        };
        Ok(Value::Map(self.targets(fields, false)?.into_iter().map(held).collect()))
    }

    fn ncores_running(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let running = self.selected(fields)?.into_iter().filter(|(_, worker)| worker.status == "running");
        Ok(Value::Map(running.map(|(_, worker)| (worker.address.as_str().into(), u64::from(worker.nthreads).into())).collect()))
    }

    /// Another try for what failed. The Client takes the keys of the answer for under way.
    fn retry(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let keys = fields.keys("keys")?;
        if let Some(client) = fields.optional_text("client")? {
            self.note(&[client], "retry", [("count", (keys.len() as u64).into())]);
        }
        let failed: Vec<TaskKey> = keys.into_iter().filter(|key| self.engine.failure(key).is_some()).collect();
        let value = keys_value(&failed);
        self.stimulate(Stimulus::RetryKeys { keys: failed });
        Ok(value)
    }

    /// From here on these tasks run on the workers that are named; anywhere where none is.
    fn set_restrictions(&mut self, fields: &Fields<'_>) -> Result<(), DocumentError> {
        let names = |value: &Value| match value {
            Value::Array(names) | Value::Set(names) => names.iter().filter_map(shown).collect(),
            one => Vec::from_iter(shown(one).filter(|_| !one.is_nil())),
        };
        let tasks = fields.by_key("worker")?.into_iter().map(|(key, value)| {
            let names = names(&value);
            (key, (!names.is_empty()).then(|| WorkerSelector { names, ..WorkerSelector::default() }))
        });
        let tasks = tasks.collect();
        self.stimulate(Stimulus::RestrictTasks { tasks });
        Ok(())
    }

    pub(crate) fn identify(&self, workers_max: i64) -> Value {
        let shown = usize::try_from(workers_max).unwrap_or(usize::MAX);
        let threads: u64 = self.workers.iter().map(|(_, worker)| u64::from(worker.nthreads)).sum();
        let memory: u64 = self.workers.iter().filter_map(|(_, worker)| worker.memory_limit).sum();
        let workers = self.workers.iter().take(shown).map(|(_, worker)| (worker.address.as_str().into(), worker.identity()));
        Value::map([
            ("type", "Scheduler".into()),
            ("id", self.identity.id.as_str().into()),
            ("address", self.identity.address.as_str().into()),
            ("services", Value::map([("dashboard", u64::from(self.identity.http_port).into())])),
            ("started", self.identity.started.into()),
            // For the keeper.
            ("epoch", self.identity.epoch.into()),
            ("n_workers", (self.workers.len() as u64).into()),
            ("total_threads", threads.into()),
            ("total_memory", memory.into()),
            ("workers", Value::Map(workers.collect())),
        ])
    }

    fn who_has(&self, keys: Option<Vec<TaskKey>>) -> Value {
        let keys = keys.unwrap_or_else(|| self.engine.keys().cloned().collect());
        let holders =
            |key: &TaskKey| Value::Array(self.engine.who_has(key).iter().map(|address| address.as_str().into()).collect());
        Value::Map(keys.iter().map(|key| (key.into(), holders(key))).collect())
    }

    fn keys_in_memory(&self) -> Vec<TaskKey> {
        let mut keys: Vec<TaskKey> = self.workers.iter().flat_map(|(id, _)| self.engine.has_what(id)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Sizes by key, or summed up by key prefix.
    fn nbytes(&self, keys: Option<Vec<TaskKey>>, summary: bool) -> Value {
        let keys = keys.unwrap_or_else(|| self.keys_in_memory());
        let sizes = keys.iter().filter_map(|key| Some((key, self.engine.nbytes(key)?)));
        if !summary {
            return Value::Map(sizes.map(|(key, nbytes)| (key.into(), nbytes.into())).collect());
        }
        let mut sums = std::collections::BTreeMap::<String, u64>::new();
        for (key, nbytes) in sizes {
            *sums.entry(key.prefix().into_owned()).or_default() += nbytes;
        }
        Value::Map(sums.into_iter().map(|(prefix, nbytes)| (prefix.into(), nbytes.into())).collect())
    }

    fn task_status(&self, keys: &[TaskKey]) -> Value {
        Value::Map(keys.iter().map(|key| (key.into(), self.engine.task_state(key).into())).collect())
    }

    /// There is no Python here: the first worker's packages stand for ours, so Clients see no mismatch that is not theirs.
    pub(crate) fn versions(&self) -> Value {
        self.workers.iter().next().map_or(Value::Map(Vec::new()), |(_, worker)| worker.versions.clone())
    }

    /// Several datasets; from Clients before 2026.6.0 one, of `name`.
    fn publish_put(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let (names, keys, data) = (names(fields)?, fields.value("keys")?, fields.value("data")?);
        let (keys, data) = if fields.has("names") {
            (keys.as_elements().unwrap_or_default(), data.as_elements().unwrap_or_default())
        } else {
            (std::slice::from_ref(&keys), std::slice::from_ref(&data))
        };
        let puts = names.into_iter().zip(keys).zip(data).map(|((name, keys), data)| {
            let keys = keys.as_elements().unwrap_or_default().iter().filter_map(Value::as_key).collect();
            Put { name, data: data.clone(), keys }
        });
        let replaces = fields.optional_boolean("override")?.unwrap_or_default();
        self.changed_datasets(fields, Change::Put { puts: puts.collect(), replaces })
    }

    fn changed_datasets(&self, fields: &Fields<'_>, change: Change) -> Result<Reply, DocumentError> {
        let client = fields.optional_text("client")?.and_then(|name| self.clients.by_name(name));
        let uid = fields.optional_text("uid")?.map(str::to_owned);
        Ok(Reply::later(move |namespace, answer| namespace.change_datasets(client, uid, change, answer)))
    }

    /// A list; to Clients before 2026.6.0, which name one alone, that one.
    fn publish_get(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        if fields.has("names") {
            return Ok(Value::Array(fields.keys("names")?.iter().map(|name| self.dataset(name)).collect()));
        }
        Ok(self.dataset(&fields.key("name")?))
    }

    /// One sentence for what cannot be, and what to do instead.
    pub(crate) fn refuse(&mut self, op: &str) -> Value {
        self.count_unknown_op(op);
        let text = match op {
            "run_function" => {
                "Mainstay's scheduler runs no Python, so run_on_scheduler cannot work: use Client.run or submit a task".to_owned()
            }
            "register_scheduler_plugin" => {
                "Mainstay's scheduler runs no Python, so it takes no scheduler plugins: use a worker plugin".to_owned()
            }
            "dump_cluster_state_to_url" => {
                "a worker has to write to this URL and there is none: dump the cluster's state to a file, which the Client writes"
                    .to_owned()
            }
            "terminate" => "this scheduler is run by Mainstay and serves others too: close your Client instead".to_owned(),
            op => format!("Mainstay does not support the scheduler operation `{op}` (yet)"),
        };
        rpc::failed(&Object::not_implemented_error(&text), &text)
    }
}

pub(crate) fn keys_value(keys: &[TaskKey]) -> Value {
    Value::Array(keys.iter().map(Value::from).collect())
}

/// What a caller wants a worker to be asked, with the forms of answers that the caller can read.
fn message_to_pass_on(fields: &Fields<'_>) -> Result<Value, DocumentError> {
    let mut message = fields.value("msg")?;
    if let Value::Map(entries) = &mut message
        && fields.has("serializers")
    {
        entries.push(("serializers".into(), fields.value("serializers")?));
    }
    Ok(message)
}

/// An address or a name; names of digits are numbers in Dask.
pub(crate) fn shown(name: &Value) -> Option<String> {
    let name = name.as_key()?;
    Some(name.as_text().map_or_else(|| name.to_string(), str::to_owned))
}

/// Dataset names: a list, or one alone as older Clients send it.
fn names(fields: &Fields<'_>) -> Result<Vec<TaskKey>, DocumentError> {
    if fields.has("names") { fields.keys("names") } else { Ok(vec![fields.key("name")?]) }
}
