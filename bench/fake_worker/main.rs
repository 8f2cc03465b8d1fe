//! The other side of a scheduler's sockets, for `make bench`: many workers in one process that do nothing.
//!
//! `fake-worker workers SCHEDULER --workers 16 --threads 8` answers each task at once, with the protocol of `dask worker`.
//! Shares no code with Mainstay: what both got wrong would be seen by nobody. A line on stdin gives a line of JSON on
//! stdout and begins a new count; the end of stdin ends the process. The other commands do so as well.

#![expect(clippy::print_stdout, reason = "its counters are its output")]

mod comm;
mod msgpack;
mod ping_pong;
mod probe;
mod relay;
mod worker;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

#[derive(Parser)]
enum Command {
    /// Many workers that answer at once.
    Workers(WorkersArgs),
    /// Asks a scheduler for heartbeats' answers, one every two milliseconds.
    Probe {
        scheduler: String,
        /// The address of a worker that is registered.
        worker: String,
    },
    /// Listens on one port, and passes on to another: notes when long answers come.
    Relay { listen: u16, to: u16 },
    /// Prints the microseconds of a round trip on loopback.
    PingPong,
}

#[derive(Args)]
pub(crate) struct WorkersArgs {
    /// Where the scheduler listens: tcp://127.0.0.1:8786.
    scheduler: String,
    #[arg(long, default_value_t = 16)]
    workers: u32,
    #[arg(long, default_value_t = 8)]
    threads: u32,
    /// Resources of every other worker, such as GPU=2.
    #[arg(long)]
    resource: Option<String>,
    /// How the workers' names begin; a number follows.
    #[arg(long, default_value = "fake-")]
    name: String,
    /// The address of the first worker, such as 127.0.1.1; each has the next. By default all are at 127.0.0.1.
    #[arg(long)]
    bind: Option<Ipv4Addr>,
    /// How many milliseconds each task takes.
    #[arg(long = "delay", default_value_t = 0.0)]
    delay_ms: f64,
}

#[derive(Debug, Default)]
struct Counters {
    tasks: u64,
    frees: u64,
    steals: u64,
    messages: u64,
    bytes_in: u64,
    bytes_out: u64,
    first: Option<f64>,
    last: Option<f64>,
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Workers(args) => workers(args).await,
        Command::Probe { scheduler, worker } => {
            let answered = probe::Answered::default();
            let probing = probe::run(scheduler, worker, Rc::clone(&answered));
            serve(vec![Box::pin(probing)], || format!("{:?}", pairs(&answered.take()))).await;
            Ok(())
        }
        Command::Relay { listen, to } => {
            let longest = Rc::new(RefCell::new(relay::Longest::default()));
            let listener = TcpListener::bind(("127.0.0.1", listen)).await?;
            let relaying = relay::run(listener, to, Rc::clone(&longest));
            let show = || {
                let relay::Longest { question, answer } = longest.take();
                format!(
                    "{{\"bytes\": {}, \"asked\": {}, \"first\": {}, \"last\": {}}}",
                    answer.bytes, question.last, answer.first, answer.last
                )
            };
            serve(vec![Box::pin(relaying)], show).await;
            Ok(())
        }
        Command::PingPong => {
            println!("{}", ping_pong::measure()?);
            Ok(())
        }
    }
}

fn pairs(answered: &[(f64, f64)]) -> Vec<[f64; 2]> {
    answered.iter().map(|(at, took)| [*at, *took]).collect()
}

async fn workers(args: WorkersArgs) -> anyhow::Result<()> {
    let args = Rc::new(args);
    let counters = Rc::new(RefCell::new(Counters::default()));
    let run = |index| worker::Worker::new(index, Rc::clone(&args), Rc::clone(&counters)).run();
    let all = (0..args.workers).map(|index| Box::pin(run(index)) as Running).collect();
    let show = || {
        let Counters { tasks, frees, steals, messages, bytes_in, bytes_out, first, last } = counters.take();
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        format!(
            "{{\"tasks\": {tasks}, \"frees\": {frees}, \"steals\": {steals}, \"messages\": {messages}, \
             \"bytes_in\": {bytes_in}, \"bytes_out\": {bytes_out}, \"first\": {first}, \"last\": {last}}}"
        )
    };
    serve(all, show).await;
    Ok(())
}

type Running = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// Runs all of these, and shows the counters for each line of stdin until it ends.
async fn serve(all: Vec<Running>, show: impl Fn() -> String) {
    let local = LocalSet::new();
    for running in all {
        local.spawn_local(async move {
            if let Err(error) = running.await {
                println!("{{\"error\": {:?}}}", format!("{error:#}"));
            }
        });
    }
    let commands = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            println!("{}", show());
        }
    };
    local.run_until(commands).await;
}
