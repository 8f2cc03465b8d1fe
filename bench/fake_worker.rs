//! Many workers in one process that do nothing: each task is answered at once, with the protocol of `dask worker`.
//!
//! `fake-worker SCHEDULER --workers 16 --threads 8`. A line on stdin gives a line of counters on stdout, as JSON, and
//! resets them; the end of stdin ends the process.

#![expect(clippy::print_stdout, reason = "its counters are its output")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Parser;
use mainstay::comm::Connection;
use mainstay::dask::TaskKey;
use mainstay::wire::encode::{Encode, Encoder, encode_batch};
use mainstay::wire::limits::Limits;
use mainstay::wire::messages::{FromWorker, ToWorker};
use mainstay::wire::value::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

/// What `pickle.dumps(int)` gives.
const INT: &[u8] = b"\x80\x04\x95\x14\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x03int\x94\x93\x94.";
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Args {
    /// Where the scheduler listens: tcp://127.0.0.1:8786.
    scheduler: String,
    #[arg(long, default_value_t = 16)]
    workers: u32,
    #[arg(long, default_value_t = 8)]
    threads: u32,
    /// Resources of every other worker, such as GPU=2.
    #[arg(long)]
    resource: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    tasks: u64,
    frees: u64,
    messages: u64,
    bytes_in: u64,
    bytes_out: u64,
    first: Option<f64>,
    last: Option<f64>,
}

/// An answer with all fields that a scheduler may want.
struct Finished {
    key: TaskKey,
    run_id: u64,
    at: f64,
}

impl Encode for Finished {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(11);
        encoder.text("op");
        encoder.text("task-finished");
        encoder.text("key");
        encoder.key(&self.key);
        encoder.text("run_id");
        encoder.unsigned(self.run_id);
        encoder.text("nbytes");
        encoder.unsigned(28);
        encoder.text("type");
        encoder.binary(INT);
        encoder.text("typename");
        encoder.text("int");
        encoder.text("metadata");
        encoder.map(0);
        encoder.text("thread");
        encoder.unsigned(139_967_484_389_056);
        encoder.text("startstops");
        encoder.array(1);
        encoder.map(3);
        encoder.text("action");
        encoder.text("compute");
        encoder.text("start");
        encoder.float(self.at);
        encoder.text("stop");
        encoder.float(self.at + 1e-5);
        encoder.text("status");
        encoder.text("OK");
        encoder.text("stimulus_id");
        encoder.text("task-finished-1795422525.56");
    }
}

enum Answer {
    Finished(Finished),
    Other(FromWorker),
}

impl Encode for Answer {
    fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::Finished(finished) => finished.encode(encoder),
            Self::Other(other) => other.encode(encoder),
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

fn map<const LENGTH: usize>(entries: [(&str, Value); LENGTH]) -> Value {
    Value::map(entries)
}

fn empty() -> Value {
    Value::Map(Vec::new())
}

fn metrics() -> Value {
    let bytes = || map([("memory", 0_u64.into()), ("disk", 0_u64.into())]);
    map([
        ("task_counts", empty()),
        ("bandwidth", map([("total", 1e8.into()), ("workers", empty()), ("types", empty())])),
        ("digests_total_since_heartbeat", empty()),
        ("managed_bytes", 0_u64.into()),
        ("spilled_bytes", bytes()),
        ("transfer", map([("incoming_bytes", 0_u64.into()), ("incoming_count", 0_u64.into()), ("outgoing_bytes", 0_u64.into())])),
        ("event_loop_interval", 0.02.into()),
        ("cpu", 1.0.into()),
        ("memory", 100_000_000_u64.into()),
        ("time", now().into()),
        ("num_fds", 10_u64.into()),
    ])
}

fn registration(address: &str, name: &str, args: &Args, is_rich: bool) -> Value {
    let resource = args.resource.as_deref().filter(|_| is_rich).and_then(|resource| resource.split_once('='));
    let resources = resource
        .map_or_else(empty, |(name, amount)| Value::Map(vec![(name.into(), amount.parse::<f64>().unwrap_or_default().into())]));
    let packages = ["dask", "distributed"].map(|package| (package, "2026.8.0".into()));
    map([
        ("op", "register-worker".into()),
        ("reply", false.into()),
        ("address", address.into()),
        ("status", "init".into()),
        ("nthreads", u64::from(args.threads).into()),
        ("name", name.into()),
        ("now", now().into()),
        ("resources", resources),
        ("memory_limit", 16_000_000_000_u64.into()),
        ("local_directory", "/nowhere".into()),
        ("services", empty()),
        ("nanny", Value::Nil),
        ("pid", 1_u64.into()),
        ("versions", map([("host", empty()), ("packages", Value::map(packages))])),
        ("metrics", metrics()),
        ("extra", empty()),
        ("stimulus_id", "worker-connect-1".into()),
        ("server_id", format!("Worker-{name}").as_str().into()),
    ])
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

async fn work(index: u32, args: Rc<Args>, counters: Rc<RefCell<Counters>>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(args.scheduler.trim_start_matches("tcp://")).await?;
    let mut connection = Connection::establish(stream, PATIENCE).await?;
    connection.receiver.set_limits(Limits::REGISTERED);
    // Nobody calls back: results are never read.
    let (address, name) = (format!("tcp://127.0.0.1:{}", 10_000 + index), format!("fake-{index}"));
    connection.sender.send(registration(&address, &name, &args, index.is_multiple_of(2)).encode()).await?;
    let answer = connection.receiver.receive().await?.ok_or_else(|| anyhow::anyhow!("closed at registration"))?;
    let answer = Value::decode(&answer)?;
    anyhow::ensure!(answer.get("status").and_then(Value::as_text) == Some("OK"), "refused: {answer:?}");
    let running = [("op", "worker-status-change"), ("status", "running"), ("stimulus_id", "status-1")];
    let running = Value::Array(vec![Value::map(running.map(|(name, value)| (name, value.into())))]);
    connection.sender.send(running.encode()).await?;
    while let Some(message) = connection.receiver.receive().await? {
        let mut answers = Vec::new();
        let at = now();
        let mut tasks = 0;
        let size = length(&message.frames);
        for told in ToWorker::decode_batch(&message)? {
            match told {
                ToWorker::ComputeTask(task) => {
                    tasks += 1;
                    answers.push(Answer::Finished(Finished { key: task.key, run_id: task.run_id, at }));
                }
                ToWorker::FreeKeys { keys, .. } => counters.borrow_mut().frees += keys.len() as u64,
                // It has answered already: whatever is asked for is in memory.
                ToWorker::StealRequest { key, stimulus_id } => {
                    let state = Some("memory".to_owned());
                    answers.push(Answer::Other(FromWorker::StealResponse { key, state, stimulus_id }));
                }
                ToWorker::Close { .. } | ToWorker::CloseStream => return Ok(()),
                _ => {}
            }
        }
        let mut written = 0;
        if !answers.is_empty() {
            let chunks = encode_batch(&answers);
            written = length(&chunks);
            connection.sender.send(chunks).await?;
        }
        let mut counters = counters.borrow_mut();
        counters.messages += 1;
        counters.bytes_in += size;
        counters.bytes_out += written;
        if tasks > 0 {
            counters.tasks += tasks;
            counters.first.get_or_insert(at);
            counters.last = Some(now());
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Rc::new(Args::parse());
    let counters = Rc::new(RefCell::new(Counters::default()));
    let local = tokio::task::LocalSet::new();
    for index in 0..args.workers {
        let (args, counters) = (Rc::clone(&args), Rc::clone(&counters));
        local.spawn_local(async move {
            if let Err(error) = work(index, args, counters).await {
                println!("{{\"error\": {:?}}}", format!("{error:#}"));
            }
        });
    }
    let commands = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            let Counters { tasks, frees, messages, bytes_in, bytes_out, first, last } = counters.take();
            let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
            println!(
                "{{\"tasks\": {tasks}, \"frees\": {frees}, \"messages\": {messages}, \"bytes_in\": {bytes_in}, \
                 \"bytes_out\": {bytes_out}, \"first\": {first}, \"last\": {last}}}"
            );
        }
    };
    local.run_until(commands).await;
    Ok(())
}
