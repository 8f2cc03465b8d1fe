//! What `distributed.performance_report` writes to a file: a page of what was done, when, where and for how long.
//!
//! One page without scripts: it is read where nothing can be fetched, and kept with the results.
//!
//! Source: distributed 2026.8.0, client.py: `performance_report`; scheduler.py: `performance_report`.

mod page;

use bytes::Bytes;

use crate::server::call::{self, OnError};
use crate::server::clock::unix_seconds;
use crate::server::diagnostics::merge;
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::value::Value;

/// What the function is called that the Client has the scheduler run first; the name is in its pickle.
const COUNTS_SAMPLES: &[u8] = b"performance_report.__aenter__.<locals>.<lambda>";

/// What a report says, but for the profile.
#[derive(Debug)]
struct Report {
    /// From when on, in seconds since 1970, and for how long.
    start: f64,
    seconds: f64,
    code: String,
    address: String,
    workers: usize,
    threads: u64,
    memory: u64,
    /// Names of packages with their versions.
    packages: Value,
    /// Of the task stream.
    records: Vec<Box<[u8]>>,
}

impl Namespace {
    /// The RPC `run_function`. No Python runs here; but a report begins by asking how many samples of the scheduler's
    /// processor and memory there are, of which it shows none.
    pub(crate) fn run_function(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let function: Bytes = fields.binary("function")?;
        if function.windows(COUNTS_SAMPLES.len()).any(|name| name == COUNTS_SAMPLES) {
            return Ok(Value::map([("status", "OK".into()), ("result", 0_i64.into())]));
        }
        Ok(self.refuse("run_function"))
    }

    /// The RPC `performance_report`: the page.
    pub(crate) fn performance_report(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let start = fields.optional_number("start")?.unwrap_or_default();
        let code = fields.optional_text("code")?.unwrap_or_default().to_owned();
        let packages = self.versions().get("packages").cloned().unwrap_or(Value::Nil);
        let report = Report {
            start,
            seconds: unix_seconds() - start,
            code,
            address: self.identity.address.clone(),
            workers: self.workers.len(),
            threads: self.workers.iter().map(|(_, worker)| u64::from(worker.nthreads)).sum(),
            memory: self.workers.iter().filter_map(|(_, worker)| worker.memory_limit).sum(),
            packages,
            records: self.task_stream.documents_since(start),
        };
        let message = Value::map([("op", "profile".into()), ("reply", true.into()), ("start", start.into())]);
        let asked = self.targets_of_all(false).into_iter().map(|target| (target, message.clone())).collect();
        Ok(Reply::later(|namespace, answer| {
            call::ask_each(namespace.pool.clone(), asked, OnError::Ignore, answer, move |profiles| {
                let profile = merge(profiles.into_iter().map(|(_, profile)| profile).collect());
                page::render(&report, &profile).into()
            });
        }))
    }
}
