//! What workers did when, for those who ask: the task stream, and what tasks noted of themselves.
//!
//! Nothing is recorded until somebody has asked once, as in the stock scheduler.
//!
//! Source: distributed 2026.8.0, diagnostics/task_stream.py; scheduler.py: `CollectTaskMetaDataPlugin`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dask::{TaskKey, parse_timedelta};
use crate::engine::WorkerId;
use crate::server::clock::unix_seconds;
use crate::server::namespace::Namespace;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::frame::Message;
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Runs remembered, and what they may take together.
const RECORDS_MAX: usize = 100_000;
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Those who collect what tasks note at the same time.
const COLLECTORS_MAX: usize = 100;
/// Of the message that ends a run these are not for the record.
const LEFT_OUT: [&str; 6] = ["op", "exception", "traceback", "exception_text", "traceback_text", "metadata"];

/// Whether readers of workers' messages are to note runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recording(Arc<AtomicBool>);

impl Recording {
    /// What ends a run, of a batch of messages; nothing when nobody has asked.
    pub(crate) fn records(&self, message: &Message) -> Vec<Value> {
        if !self.0.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let Ok(Value::Array(messages)) = Value::decode(message) else { return Vec::new() };
        let ends_run = |message: &Value| {
            matches!(message.get("op").and_then(Value::as_text), Some("task-finished" | "task-erred"))
                && message.get("startstops").is_some()
        };
        messages.into_iter().filter(ends_run).collect()
    }
}

#[derive(Debug, Default)]
pub(crate) struct TaskStream {
    recording: Recording,
    records: VecDeque<Record>,
    bytes: usize,
    /// Records since the beginning, also those forgotten.
    index: u64,
    collectors: BTreeMap<String, Collector>,
}

#[derive(Debug)]
struct Record {
    /// When the last thing that it did ended, in seconds since 1970 by the worker's clock.
    stop: f64,
    document: Box<[u8]>,
}

/// What tasks noted since somebody began to collect.
#[derive(Debug, Default)]
struct Collector {
    noted: BTreeMap<TaskKey, Value>,
    state: BTreeMap<TaskKey, &'static str>,
}

impl TaskStream {
    pub(crate) fn recording(&self) -> Recording {
        self.recording.clone()
    }

    fn start(&self) {
        self.recording.0.store(true, Ordering::Relaxed);
    }

    fn add(&mut self, worker: &str, message: &Value) {
        let Some(fields) = message.as_map() else { return };
        let status = if message.get("op").and_then(Value::as_text) == Some("task-finished") { "OK" } else { "error" };
        let kept = |name: &Value| name.as_text().is_some_and(|name| !LEFT_OUT.contains(&name) && name != "status");
        let mut entries: Vec<(Value, Value)> = fields.iter().filter(|(name, _)| kept(name)).cloned().collect();
        entries.push(("worker".into(), worker.into()));
        entries.push(("status".into(), status.into()));
        self.collect_notes(message, status);
        let stops = message.get("startstops").and_then(Value::as_elements).unwrap_or_default().iter();
        let stop = stops.filter_map(|each| each.get("stop")?.as_number()).fold(0.0, f64::max);
        let document = Value::Map(entries).to_msgpack().into_boxed_slice();
        self.bytes += document.len();
        self.records.push_back(Record { stop, document });
        self.index += 1;
        while self.records.len() > RECORDS_MAX || self.bytes > RECORD_BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.document.len();
        }
    }

    fn collect_notes(&mut self, message: &Value, status: &str) {
        if self.collectors.is_empty() {
            return;
        }
        let Some(key) = message.get("key").and_then(Value::as_key) else { return };
        let noted = message.get("metadata").cloned().unwrap_or(Value::Map(Vec::new()));
        for collector in self.collectors.values_mut().filter(|collector| collector.noted.len() < RECORDS_MAX) {
            collector.noted.insert(key.clone(), noted.clone());
            collector.state.insert(key.clone(), if status == "OK" { "memory" } else { "erred" });
        }
    }

    /// The records that do not end before a time, as documents.
    pub(crate) fn documents_since(&self, time: f64) -> Vec<Box<[u8]>> {
        self.records.range(self.place(time)..).map(|record| record.document.clone()).collect()
    }

    /// The first record that does not end before a time.
    fn place(&self, time: f64) -> usize {
        self.records.partition_point(|record| record.stop < time)
    }

    fn between(&self, start: usize, stop: usize) -> Value {
        let stop = stop.min(self.records.len());
        let records = self.records.range(start.min(stop)..stop);
        Value::Array(records.filter_map(|record| Value::from_msgpack(&record.document.clone().into()).ok()).collect())
    }
}

impl Namespace {
    pub(crate) fn on_records(&mut self, worker: WorkerId, records: &[Value]) {
        let Some(address) = self.workers.get(worker).map(|worker| worker.address.clone()) else { return };
        for record in records {
            self.task_stream.add(address.as_str(), record);
        }
    }

    /// The RPC `get_task_stream`: records from and to a time, or a number of them, or from the n-th on.
    pub(crate) fn get_task_stream(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        self.task_stream.start();
        let stream = &self.task_stream;
        if let Some(first) = fields.optional_unsigned("start_index")? {
            let forgotten = stream.index - stream.records.len() as u64;
            let first = usize::try_from(first.saturating_sub(forgotten)).unwrap_or(usize::MAX);
            return Ok(stream.between(first, usize::MAX));
        }
        let place = |name| -> Result<Option<usize>, DocumentError> {
            Ok(time(&fields.optional_value(name)?).map(|time| stream.place(time)))
        };
        let count = fields.optional_unsigned("count")?.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let (start, stop) = match (place("start")?, place("stop")?, count) {
            (None, None, Some(count)) => (stream.records.len().saturating_sub(count), usize::MAX),
            (None, Some(stop), Some(count)) => (stop.saturating_sub(count), stop),
            (Some(start), None, Some(count)) => (start, start.saturating_add(count)),
            (start, stop, _) => (start.unwrap_or_default(), stop.unwrap_or(usize::MAX)),
        };
        Ok(stream.between(start, stop))
    }

    /// The RPC `get_task_stream_index`: how many records there have been.
    pub(crate) fn get_task_stream_index(&mut self) -> Value {
        self.task_stream.start();
        self.task_stream.index.into()
    }

    /// The RPC `start_task_metadata`.
    pub(crate) fn start_task_metadata(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        self.task_stream.start();
        let name = fields.text("name")?;
        if self.task_stream.collectors.len() >= COLLECTORS_MAX {
            let text = format!("{COLLECTORS_MAX} others collect the metadata of tasks at this time");
            return Ok(rpc::failed(&Object::value_error(&text), &text));
        }
        self.task_stream.collectors.insert(name.to_owned(), Collector::default());
        Ok(Value::Nil)
    }

    /// The RPC `stop_task_metadata`: what has been noted since.
    pub(crate) fn stop_task_metadata(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let name = fields.text("name")?;
        let Some(collector) = self.task_stream.collectors.remove(name) else {
            let text = format!("no task metadata is collected under the name {name}");
            return Ok(rpc::failed(&Object::value_error(&text), &text));
        };
        let noted = collector.noted.iter().map(|(key, noted)| (key.into(), noted.clone())).collect();
        let state = collector.state.iter().map(|(key, state)| (key.into(), (*state).into())).collect();
        Ok(Value::map([("metadata", Value::Map(noted)), ("state", Value::Map(state))]))
    }
}

/// A time in seconds since 1970, or how long ago as a text such as `10s`.
fn time(value: &Value) -> Option<f64> {
    match value {
        Value::Text(text) => Some(unix_seconds() - parse_timedelta(text).ok()?),
        other => other.as_number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(key: &str, stop: f64) -> Value {
        let compute = Value::map([("action", "compute".into()), ("start", 0.0.into()), ("stop", stop.into())]);
        Value::map([
            ("op", "task-finished".into()),
            ("key", key.into()),
            ("startstops", Value::Array(vec![compute])),
            ("metadata", Value::map([("note", key.into())])),
        ])
    }

    fn keys(records: &Value) -> Vec<&str> {
        records.as_elements().unwrap().iter().map(|record| record.get("key").unwrap().as_text().unwrap()).collect()
    }

    #[test]
    fn records_are_found_by_time_and_the_oldest_are_forgotten() {
        let mut stream = TaskStream::default();
        for index in 0..5 {
            stream.add("tcp://w:1", &finished(&format!("k{index}"), f64::from(index)));
        }
        assert_eq!(keys(&stream.between(stream.place(1.5), stream.place(4.0))), ["k2", "k3"]);
        let all = stream.between(0, usize::MAX);
        assert_eq!(all.as_elements().unwrap()[0].get("status").unwrap().as_text(), Some("OK"));
        assert!(all.as_elements().unwrap()[0].get("metadata").is_none());
        for index in 0..RECORDS_MAX {
            stream.add("tcp://w:1", &finished("k", 5.0 + index as f64));
        }
        assert_eq!((stream.records.len(), stream.index), (RECORDS_MAX, RECORDS_MAX as u64 + 5));
    }

    #[test]
    fn notes_are_those_since_somebody_began_to_collect() {
        let mut stream = TaskStream::default();
        stream.add("tcp://w:1", &finished("before", 1.0));
        stream.collectors.insert("mine".to_owned(), Collector::default());
        stream.add("tcp://w:1", &finished("after", 2.0));
        let collector = &stream.collectors["mine"];
        assert_eq!(collector.noted.keys().map(ToString::to_string).collect::<Vec<_>>(), ["after"]);
        assert_eq!(collector.state.values().copied().collect::<Vec<_>>(), ["memory"]);
    }
}
