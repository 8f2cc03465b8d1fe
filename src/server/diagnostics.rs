//! Tells those who look for the cause of something: stacks, profiles, logs, stories, the whole state.
//!
//! Source: distributed 2026.8.0, scheduler.py: the handlers of the same names; profile.py: `merge`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::comm::Pool;
use crate::dask::TaskKey;
use crate::engine::Stimulus;
use crate::server::builder;
use crate::server::call::{self, OnError, Target};
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Tasks described in a dump: a document is not to be larger than what a peer reads.
const DUMPED_TASKS_MAX: usize = 100_000;
/// Profiles are no deeper than Python's stack.
const PROFILE_DEPTH_MAX: usize = 1000;

/// What we say of ourselves, and what workers are to be asked.
struct Inquiry {
    scheduler: Value,
    versions: Value,
    asked: Vec<(Target, Value)>,
}

impl Inquiry {
    async fn state(self, pool: &Pool) -> Value {
        match call::ask_all(pool, &self.asked, OnError::Return).await {
            Ok(workers) => {
                Value::map([("scheduler", self.scheduler), ("workers", Value::Map(workers)), ("versions", self.versions)])
            }
            Err(failed) => failed,
        }
    }
}

impl Namespace {
    /// The RPC `call_stack`: what these keys, or all workers, are just at.
    pub(crate) fn call_stack(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let asked: Vec<(Target, Value)> = match fields.optional_keys("keys")? {
            None => self.targets_of_all(false).into_iter().map(|target| (target, Value::Nil)).collect(),
            Some(keys) => {
                let running = self.engine.runs_below(&keys).into_iter();
                running.filter_map(|(worker, keys)| Some((self.target(worker)?, keys_value(&keys)))).collect()
            }
        };
        let ask = |keys| Value::map([("op", "call_stack".into()), ("reply", true.into()), ("keys", keys)]);
        let asked = asked.into_iter().map(|(target, keys)| (target, ask(keys))).collect();
        Ok(Reply::later(|namespace, answer| {
            call::ask_each(namespace.pool.clone(), asked, OnError::Ignore, answer, |stacks| {
                let said = |stack: &Value| stack.as_map().is_some_and(|stack| !stack.is_empty());
                Value::Map(stacks.into_iter().filter(|(_, stack)| said(stack)).collect())
            });
        }))
    }

    /// The RPC `profile`: of workers, of one key's tasks or all, put together or each for itself.
    pub(crate) fn profile(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        if fields.optional_boolean("scheduler")?.unwrap_or_default() {
            return Ok(empty_profile().into());
        }
        let mut message = vec![("op".into(), "profile".into()), ("reply".into(), true.into())];
        for name in ["start", "stop", "key", "server"] {
            if fields.has(name) {
                message.push((name.into(), fields.value(name)?));
            }
        }
        let message = Value::Map(message);
        let asked = self.targets(fields, false)?.into_iter().map(|target| (target, message.clone())).collect();
        let merges = fields.optional_boolean("merge_workers")?.unwrap_or(true);
        Ok(Reply::later(move |namespace, answer| {
            call::ask_each(namespace.pool.clone(), asked, OnError::Raise, answer, move |profiles| {
                if merges { merge(profiles.into_iter().map(|(_, profile)| profile).collect()) } else { Value::Map(profiles) }
            });
        }))
    }

    /// The RPC `worker_logs`: the last lines of workers or of their nannies.
    pub(crate) fn worker_logs(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let targets = self.targets(fields, fields.optional_boolean("nanny")?.unwrap_or_default())?;
        let message = Value::map([("op", "get_logs".into()), ("reply", true.into()), ("n", fields.optional_value("n")?)]);
        Ok(Reply::later(|namespace, answer| {
            call::broadcast(namespace.pool.clone(), targets, message, OnError::Raise, answer);
        }))
    }

    /// The RPC `get_story`: what happened to these keys, the oldest first.
    pub(crate) fn story(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let started = self.identity.started;
        let mut rows: Vec<(f64, Value)> = Vec::new();
        for key in fields.keys("keys_or_stimuli")? {
            for entry in self.engine.story(&key) {
                let time = started + entry.at.0 as f64 / 1e3;
                let row = vec![
                    Value::from(&key),
                    entry.from.into(),
                    entry.to.into(),
                    Value::Map(Vec::new()),
                    format!("mainstay-{}", entry.because).into(),
                    time.into(),
                ];
                rows.push((time, Value::Array(row)));
            }
        }
        rows.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Ok(Value::Array(rows.into_iter().map(|(_, row)| row).collect()))
    }

    /// The RPC `get_cluster_state`: all that `Client.dump_cluster_state` writes into its file.
    pub(crate) fn cluster_state(&self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let inquiry = self.inquire(fields)?;
        Ok(Reply::later(|namespace, answer| {
            let pool = Arc::clone(&namespace.pool);
            namespace.pool.spawn(async move { call::reply(answer, &inquiry.state(&pool).await) });
        }))
    }

    /// The RPC `dump_cluster_state_to_url`: a worker writes it.
    pub(crate) fn dump_cluster_state(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        const OWN: [&str; 6] = ["op", "reply", "close", "url", "format", "exclude"];
        let Some((pool, writer)) = self.who_builds() else { return Ok(self.refuse("dump_cluster_state_to_url").into()) };
        let inquiry = self.inquire(fields)?;
        let (url, format) = (fields.value("url")?, fields.value("format")?);
        let options = fields.others(&OWN)?;
        Ok(Reply::later(|namespace, answer| {
            namespace.pool.spawn(async move {
                let state = inquiry.state(&pool).await;
                let request = Value::map([("url", url), ("format", format), ("storage_options", options), ("state", state)]);
                call::reply(answer, &builder::dump(&pool, &writer, &request).await);
            });
        }))
    }

    fn inquire(&self, fields: &Fields<'_>) -> Result<Inquiry, DocumentError> {
        let exclude = fields.optional_value("exclude")?;
        let exclude = exclude.as_elements().unwrap_or_default();
        let versions = Value::map([("scheduler", self.versions()), ("workers", self.worker_versions())]);
        let message = [("op", "dump_state".into()), ("reply", true.into()), ("exclude", Value::Array(exclude.to_vec()))];
        let message = Value::map(message);
        let asked = self.targets_of_all(false).into_iter().map(|target| (target, message.clone())).collect();
        let excluded: Vec<&str> = exclude.iter().filter_map(Value::as_text).collect();
        Ok(Inquiry { scheduler: self.own_state(&excluded), versions, asked })
    }

    fn own_state(&self, excluded: &[&str]) -> Value {
        let without = |mut described: Value| {
            if let Value::Map(entries) = &mut described {
                entries.retain(|(name, _)| name.as_text().is_none_or(|name| !excluded.contains(&name)));
            }
            described
        };
        let task = |key: &TaskKey| {
            let described = Value::map([
                ("key", key.into()),
                ("state", self.engine.task_state(key).into()),
                ("nbytes", self.engine.nbytes(key).into()),
                ("who_has", Value::Array(self.engine.who_has(key).iter().map(|address| address.as_str().into()).collect())),
            ]);
            (key.to_string().into(), without(described))
        };
        let tasks = self.engine.keys().take(DUMPED_TASKS_MAX).map(task).collect();
        let workers = self.workers.iter().map(|(id, worker)| {
            let Value::Map(mut described) = worker.identity() else { return (Value::Nil, Value::Nil) };
            described.push(("has_what".into(), keys_value(&self.engine.has_what(id))));
            described.push(("processing".into(), keys_value(&self.engine.processing(id))));
            (worker.address.as_str().into(), without(Value::Map(described)))
        });
        with_plain_keys(Value::map([
            ("type", "Scheduler".into()),
            ("id", self.identity.id.as_str().into()),
            ("address", self.identity.address.as_str().into()),
            ("started", self.identity.started.into()),
            ("thread_id", Value::Nil),
            ("status", "running".into()),
            ("workers", Value::Map(workers.collect())),
            ("tasks", Value::Map(tasks)),
            ("task_counter", (self.engine.tasks_known() as u64).into()),
            ("events", self.topics.events(None)),
        ]))
    }

    fn worker_versions(&self) -> Value {
        Value::Map(self.workers.iter().map(|(_, worker)| (worker.address.as_str().into(), worker.versions.clone())).collect())
    }

    /// The RPC `get_task_prefix_states`: how many tasks of each prefix are in which state.
    pub(crate) fn prefix_states(&self) -> Value {
        const STATES: [&str; 5] = ["memory", "erred", "released", "processing", "waiting"];
        let mut counts: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
        for key in self.engine.keys() {
            let Some(state) = self.engine.task_state(key) else { continue };
            *counts.entry(key.prefix().into_owned()).or_default().entry(state).or_default() += 1;
        }
        let row = |states: BTreeMap<&str, u64>| {
            Value::map(STATES.map(|state| (state, states.get(state).copied().unwrap_or_default().into())))
        };
        Value::Map(counts.into_iter().map(|(prefix, states)| (prefix.into(), row(states))).collect())
    }

    /// The RPC `amm_handler`: replicas that nobody needs are dropped, or left while a Client says so.
    pub(crate) fn amm_handler(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let keeps = match fields.text("method")? {
            "start" => false,
            "stop" => true,
            "run_once" => {
                self.stimulate(Stimulus::ReduceReplicas);
                return Ok(Value::Nil);
            }
            "running" => return Ok((!self.engine.keeps_replicas()).into()),
            other => {
                let text = format!("amm_handler has no method `{other}`: start, stop, run_once or running");
                return Ok(rpc::failed(&Object::value_error(&text), &text));
            }
        };
        self.stimulate(Stimulus::KeepReplicas { keeps });
        Ok(Value::Nil)
    }
}

/// What we say of our own logs: they are where Kubernetes has them.
pub(crate) fn own_logs() -> Value {
    let text = "Mainstay logs to its standard error: `kubectl logs` of the operator's pod, or the terminal of `mainstay local`";
    Value::Array(vec![Value::Array(vec!["INFO".into(), text.into()])])
}

fn keys_value(keys: &[TaskKey]) -> Value {
    Value::Array(keys.iter().map(Value::from).collect())
}

fn empty_profile() -> Value {
    let description =
        Value::map([("filename", "".into()), ("name", "".into()), ("line_number", 0_i64.into()), ("line", "".into())]);
    Value::map([
        ("count", 0_i64.into()),
        ("children", Value::Map(Vec::new())),
        ("identifier", "root".into()),
        ("description", description),
    ])
}

/// Adds up the counts of equal frames.
pub(crate) fn merge(profiles: Vec<Value>) -> Value {
    merge_to(profiles, PROFILE_DEPTH_MAX)
}

fn merge_to(profiles: Vec<Value>, depth: usize) -> Value {
    let Some(first) = profiles.first() else { return empty_profile() };
    let named = |name: &str| first.get(name).cloned().unwrap_or(Value::Nil);
    let (identifier, description) = (named("identifier"), named("description"));
    let count: i64 = profiles.iter().filter_map(|profile| profile.get("count")?.as_integer()).sum();
    let mut children: Vec<(Value, Vec<Value>)> = Vec::new();
    let mut places = BTreeMap::new();
    for profile in profiles {
        let Some(found) = profile.get("children").and_then(Value::as_map) else { continue };
        for (name, child) in found {
            let place = *places.entry(name.as_text().unwrap_or_default().to_owned()).or_insert_with(|| {
                children.push((name.clone(), Vec::new()));
                children.len() - 1
            });
            children[place].1.push(child.clone());
        }
    }
    if depth == 0 {
        children.clear();
    }
    let children = children.into_iter().map(|(name, same)| (name, merge_to(same, depth - 1))).collect();
    Value::map([
        ("count", count.into()),
        ("children", Value::Map(children)),
        ("identifier", identifier),
        ("description", description),
    ])
}

/// The value with keys of maps that a file can have, as `distributed.utils.recursive_to_dict` makes them: metrics and events
/// have tuples for keys, which nothing reads back.
fn with_plain_keys(value: Value) -> Value {
    match value {
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (plain_key(key), with_plain_keys(value))).collect())
        }
        Value::Array(elements) => Value::Array(elements.into_iter().map(with_plain_keys).collect()),
        other => other,
    }
}

fn plain_key(key: Value) -> Value {
    match key {
        Value::Array(_) | Value::Map(_) | Value::Set(_) => format!("{key:?}").into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, count: i64, children: Vec<Value>) -> Value {
        let children = children.into_iter().map(|child| (child.get("identifier").unwrap().clone(), child)).collect();
        Value::map([
            ("count", count.into()),
            ("children", Value::Map(children)),
            ("identifier", name.into()),
            ("description", Value::Nil),
        ])
    }

    #[test]
    fn profiles_are_added_up_frame_by_frame() {
        let one = profile("root", 3, vec![profile("a", 2, vec![profile("b", 1, Vec::new())])]);
        let other = profile("root", 4, vec![profile("a", 1, Vec::new()), profile("c", 3, Vec::new())]);
        let a = profile("a", 3, vec![profile("b", 1, Vec::new())]);
        assert_eq!(merge(vec![one, other]), profile("root", 7, vec![a, profile("c", 3, Vec::new())]));
        assert_eq!(merge(Vec::new()), empty_profile());
    }

    #[test]
    fn keys_that_no_file_can_have_become_text() {
        let key = Value::Array(vec!["execute".into(), Value::Nil]);
        let described = Value::map([("metrics", Value::Map(vec![(key, 2_u64.into()), (1_u64.into(), Value::Nil)]))]);
        let texts = Value::Map(vec![("[\"execute\", nil]".into(), 2_u64.into()), (1_u64.into(), Value::Nil)]);
        assert_eq!(with_plain_keys(described), Value::map([("metrics", texts)]));
    }
}
