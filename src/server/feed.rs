//! Progress bars: tells a Client again and again how far its keys have come, on a comm of their own.
//!
//! A bar sends two Python functions that a stock scheduler runs in itself. Here a worker reads from the first which
//! keys are meant, and we count.
//!
//! Source: distributed 2026.8.0, diagnostics/progressbar.py: `ProgressBar.listen`, `MultiProgressBar.listen`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::comm::{CommError, Pool, Receiver, Sender};
use crate::dask::{TaskKey, WorkerAddress, parse_timedelta};
use crate::engine::{CountsByPrefix, Progress};
use crate::server::builder;
use crate::server::carry_out::exception_values;
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::wire::document::DocumentError;
use crate::wire::messages::Request;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// How often a bar may be told, in seconds.
const INTERVAL_RANGE: std::ops::RangeInclusive<f64> = 0.05..=60.0;
/// Counting a large graph takes the loop's time: so many times as long passes before it is counted again.
const PAUSE_FACTOR: u32 = 50;

/// What a bar shows.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    keys: Arc<Vec<TaskKey>>,
    /// Counts what is in memory already as well.
    complete: bool,
    /// Counts by prefix of the key.
    by_prefix: bool,
}

/// One count, and how long it took.
#[derive(Debug)]
pub(crate) struct Counted {
    progress: Progress,
    /// When asked for, and when all of the keys are known.
    all: Option<CountsByPrefix>,
    /// The exception and the traceback of what failed.
    exception: Option<(Value, Value)>,
    took: Duration,
}

/// Why a bar ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Comm(#[from] CommError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// Serves one bar until all is done, something failed, or the Client looks away.
pub(crate) async fn serve(
    request: &Request,
    mut receiver: Receiver,
    mut sender: Sender,
    events: &mpsc::Sender<Event>,
) -> Result<(), Error> {
    let setup = request.fields().binary("setup")?;
    // A number of seconds, or a text as the user wrote it.
    let seconds = match request.fields().optional_value("interval")? {
        Value::Text(text) => parse_timedelta(&text).ok(),
        other => other.as_number(),
    };
    let seconds = seconds.unwrap_or(1.0);
    let interval = Duration::from_secs_f64(seconds.clamp(*INTERVAL_RANGE.start(), *INTERVAL_RANGE.end()));
    let watch = tokio::select! {
        watch = find_out(&setup, events, interval) => watch,
        _ = receiver.receive() => return Ok(()),
    };
    let watch = match watch {
        Ok(Some(watch)) => watch,
        Ok(None) => return Ok(()),
        Err(text) => return Ok(sender.send(refusal(&text).encode()).await?),
    };
    let mut all = None;
    loop {
        let (answer, answered) = oneshot::channel();
        let count = Event::Count { watch: watch.clone(), with_all: all.is_none(), answer };
        if events.send(count).await.is_err() {
            return Ok(());
        }
        let Ok(counted) = answered.await else { return Ok(()) };
        let pause = interval.max(counted.took * PAUSE_FACTOR);
        all = all.or_else(|| counted.all.clone());
        // Without it, the graph of these keys is still on its way.
        if let Some(all) = &all {
            let is_over = counted.exception.is_some() || counted.progress.remaining.is_empty();
            sender.send(shown(&watch, all, counted).encode()).await?;
            if is_over {
                return Ok(());
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = receiver.receive() => return Ok(()),
        }
    }
}

/// Has a worker say which keys are meant; `None` when the server ends.
async fn find_out(setup: &Bytes, events: &mpsc::Sender<Event>, interval: Duration) -> Result<Option<Watch>, String> {
    loop {
        let (answer, answered) = oneshot::channel();
        if events.send(Event::WhoBuilds { answer }).await.is_err() {
            return Ok(None);
        }
        match answered.await {
            Err(_) => return Ok(None),
            Ok(None) => {}
            Ok(Some((pool, worker))) => {
                if let Some(document) = builder::inspect(&pool, &worker, setup).await {
                    return read(&document).map(Some);
                }
            }
        }
        // Without a worker nothing comes along either.
        sleep(interval).await;
    }
}

fn read(document: &Value) -> Result<Watch, String> {
    let flag = |name| document.get(name).and_then(Value::as_boolean).unwrap_or_default();
    if let Some(error) = document.get("error") {
        let text = error.get("message").and_then(Value::as_text).unwrap_or("no reason given");
        return Err(format!("Mainstay cannot show this kind of progress: {text}"));
    }
    let keys = document.get("keys").and_then(Value::as_elements).unwrap_or_default();
    let keys = keys.iter().filter_map(Value::as_key).collect();
    Ok(Watch { keys: Arc::new(keys), complete: flag("complete"), by_prefix: flag("by_prefix") })
}

fn refusal(text: &str) -> Value {
    let exception = Object::not_implemented_error(text).dumps();
    Value::map([
        ("all", Value::Map(Vec::new())),
        ("remaining", Value::Map(Vec::new())),
        ("status", "error".into()),
        ("exception", Value::Binary(exception)),
        ("traceback", Value::Nil),
        ("key", "".into()),
    ])
}

/// What the bar reads.
fn shown(watch: &Watch, all: &CountsByPrefix, counted: Counted) -> Value {
    let counts = |counts: &CountsByPrefix| match watch.by_prefix {
        true => Value::Map(
            all.keys().map(|prefix| (prefix.as_str().into(), counts.get(prefix).copied().unwrap_or_default().into())).collect(),
        ),
        false => counts.values().sum::<u64>().into(),
    };
    // A group that is done is still shown, with nothing remaining.
    let remaining: CountsByPrefix = all.keys().map(|prefix| (prefix.clone(), 0)).chain(counted.progress.remaining).collect();
    let status = match (&counted.exception, remaining.values().sum::<u64>()) {
        (Some(_), _) => "error",
        (None, 0) => "finished",
        (None, _) => "running",
    };
    let mut entries =
        vec![("all".into(), counts(all)), ("remaining".into(), counts(&remaining)), ("status".into(), status.into())];
    if let Some((exception, traceback)) = counted.exception {
        let key = counted.progress.failed.as_ref().map_or(Value::Nil, Value::from);
        entries.extend([("exception".into(), exception), ("traceback".into(), traceback), ("key".into(), key)]);
    }
    Value::Map(entries)
}

impl Namespace {
    /// Who may be asked to look into what a Client sent.
    pub(crate) fn who_builds(&self) -> Option<(Arc<Pool>, WorkerAddress)> {
        let worker = self.engine.choose_lowerer()?;
        Some((Arc::clone(&self.pool), self.workers.get(worker)?.address.clone()))
    }

    pub(crate) fn count(&self, watch: &Watch, with_all: bool) -> Counted {
        let started = Instant::now();
        let progress = self.engine.progress(&watch.keys);
        let is_known = || watch.keys.iter().all(|key| self.engine.knows(key));
        let all = match (with_all && is_known(), watch.complete) {
            (false, _) => None,
            (true, true) => Some(self.engine.dependencies_by_prefix(&watch.keys)),
            (true, false) => Some(progress.remaining.clone()),
        };
        let failure = progress.failed.as_ref().and_then(|key| Some((key, self.engine.failure(key)?)));
        let exception = failure.map(|(key, failure)| exception_values(key, failure.exception.clone()));
        Counted { progress, all, exception, took: started.elapsed() }
    }
}
