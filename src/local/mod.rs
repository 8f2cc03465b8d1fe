//! The same manifests on child workers of this machine, without Kubernetes.
//!
//! Starts a server and workers, applies the collections, shows progress, and keeps serving Clients until stopped.

mod args;
mod manifest;
mod offer;
mod progress;
mod tls;
mod waiting;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use args::LocalArgs;

use crate::comm::scheme;
use crate::engine;
use crate::local::manifest::Collection;
use crate::local::offer::Offer;
use crate::local::progress::Progress;
use crate::local::worker::Recipe;
use crate::server::{self, Admission, CollectionRequest, Facts, Handle, Past, Report, Stage, Verdict, describe_cycle};

/// How the names of workers begin that only build.
const BUILDER_PREFIX: &str = "builder";

/// How it ended, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// A collection failed, and `--once` was given.
    Failed,
}

/// Runs until stopped, or with `--once` until all collections are settled.
///
/// # Errors
/// When a manifest is wrong, the port is taken or the workers do not start.
pub async fn run(args: LocalArgs) -> Result<Outcome> {
    let collections = if args.files.is_empty() { Vec::new() } else { manifest::read(&args.files)? };
    let offer = Offer::new(&args, &collections);
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    let files = tls::Files::of(&args);
    let tls = files.as_ref().map(tls::Files::read).transpose()?;
    let address = format!("{}://{}", scheme(tls.as_ref()), listener.local_addr()?);
    let (changed, changes) = mpsc::unbounded_channel();
    let config = server::Config {
        engine: engine::Config { epoch: server::epoch_of_now(), ..engine::Config::default() },
        seed: 0,
        admission: Arc::new(Anyone { labels: offer.labels.clone() }),
        tls: tls.clone(),
        changed,
        id: "Scheduler-mainstay-local".to_owned(),
        http_port: 0,
        fence: server::Fence::default(),
        // Who comes back is noticed; who is there is not known.
        patience: Duration::ZERO,
    };
    let (handle, mut server) = server::start(config, listener)?;
    say(&format!("Serving Dask at {address}"));
    offer.notice().iter().for_each(|notice| say(notice));

    let directory = std::env::temp_dir().join(format!("mainstay-local-{}", std::process::id()));
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to create {}", directory.display()))?;
    let (stop, stopped) = watch::channel(false);
    let mut workers = start_workers(&args, &offer, &address, &directory, &stopped).await?;
    for collection in &collections {
        handle.apply(Arc::new(request(collection)));
    }
    handle.all_applied();
    let result = tokio::select! {
        outcome = follow(&args, &address, &collections, &handle, changes) => outcome,
        Some(ended) = workers.join_next(), if !workers.is_empty() => Err(ended.map_or_else(Into::into, |kept| {
            kept.err().unwrap_or_else(|| anyhow::anyhow!("a worker ended by itself"))
        })),
        // It ends by itself only through a bug; half a scheduler is worse than none.
        ended = &mut server => Err(anyhow::anyhow!("the scheduler ended by itself: {}", ended.err().map_or_else(String::new, |error| error.to_string()))),
        outcome = interrupted() => outcome,
        never = tls::follow(files.zip(tls)) => match never {},
    };
    // Nobody listens when no worker was started.
    let _ = stop.send(true);
    while workers.join_next().await.is_some() {}
    // Only scratch space of workers that are gone.
    let _ = std::fs::remove_dir_all(&directory);
    result
}

/// Tells a person something. Standard error, since standard output is for results.
#[expect(clippy::print_stderr, reason = "local mode talks to a person at a terminal")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// On a machine of one's own everyone may work; there are no pods, so labels come from the command line.
struct Anyone {
    labels: args::Labels,
}

impl Admission for Anyone {
    fn admit(&self, _peer: std::net::IpAddr, name: &str, _host: &str) -> Verdict {
        Verdict::Admitted(Facts { labels: self.labels.clone(), builder: name.starts_with(BUILDER_PREFIX), ..Facts::default() })
    }
}

async fn start_workers(
    args: &LocalArgs,
    offer: &Offer,
    address: &str,
    directory: &std::path::Path,
    stop: &watch::Receiver<bool>,
) -> Result<JoinSet<Result<()>>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let count = args.workers.unwrap_or_else(|| processors.div_ceil(args.threads as usize));
    let builder = args.builder.then(|| BUILDER_PREFIX.to_owned());
    let names: Vec<String> = (0..count).map(|index| format!("worker-{index}")).chain(builder).collect();
    let mut workers = JoinSet::new();
    if names.is_empty() {
        return Ok(workers);
    }
    let recipe = Recipe::find(args, offer, address.to_owned(), directory).await?;
    for name in names {
        workers.spawn(worker::keep(recipe.clone(), name, stop.clone()));
    }
    Ok(workers)
}

fn request(collection: &Collection) -> CollectionRequest {
    CollectionRequest {
        uid: collection.name.clone(),
        name: collection.name.clone(),
        generation: 1,
        revision: collection.validated.revision.clone(),
        build: Arc::clone(&collection.validated.build),
        requirements: collection.validated.requirements.clone(),
        past: Past::default(),
    }
}

async fn interrupted() -> Result<Outcome> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(Outcome::Done)
}

/// Shows progress until all collections are settled; then ends, or goes on serving.
async fn follow(
    args: &LocalArgs,
    address: &str,
    collections: &[Collection],
    handle: &Handle,
    mut changes: mpsc::UnboundedReceiver<String>,
) -> Result<Outcome> {
    let names: Vec<&str> = collections.iter().map(|collection| collection.name.as_str()).collect();
    let mut progress = Progress::new(&names);
    let mut is_told = false;
    loop {
        let mut reports: Vec<(&str, Arc<Report>)> = Vec::new();
        let known = handle.snapshot();
        for Collection { name, validated } in collections {
            let Some(report) = known.get(name).cloned() else { continue };
            progress.show(name, &report, &validated.requirements);
            reports.push((name, report));
        }
        let settled: Vec<Settled> = reports.iter().map(|(_, report)| settled(report)).collect();
        let is_settled = reports.len() == names.len() && settled.iter().all(|settled| *settled != Settled::No);
        if is_settled && !is_told && !names.is_empty() {
            is_told = true;
            progress.finish();
            tell(&progress, &reports, (!args.once).then_some(address));
            if args.once {
                let failed = settled.contains(&Settled::Failed);
                return Ok(if failed { Outcome::Failed } else { Outcome::Done });
            }
            say("Serving until stopped with Ctrl-C.");
        }
        if changes.recv().await.is_none() {
            anyhow::bail!("the server has ended");
        }
        // What comes in quick succession is shown once.
        tokio::time::sleep(Duration::from_millis(50)).await;
        while changes.try_recv().is_ok() {}
    }
}

/// Whether a collection has come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    No,
    Persisted,
    Failed,
}

fn settled(report: &Report) -> Settled {
    match (&report.stage, &report.summary) {
        (Stage::BuildFailed(_) | Stage::InputCycle { .. }, _) => Settled::Failed,
        // Nothing is applied or edited any more.
        (Stage::WaitingForInput(missing), _) if missing.is_hopeless() => Settled::Failed,
        (Stage::Accepted, Some(summary)) => {
            let missing = summary.outputs.iter().any(|output| output.in_memory + output.erred < output.keys);
            match (missing, summary.tasks.erred) {
                (true, _) => Settled::No,
                (false, 0) => Settled::Persisted,
                (false, _) => Settled::Failed,
            }
        }
        _ => Settled::No,
    }
}

/// Says what came of the collections. With an `address`, also how to read them there.
fn tell(progress: &Progress, reports: &[(&str, Arc<Report>)], address: Option<&str>) {
    for (name, report) in reports {
        match &report.stage {
            Stage::BuildFailed(error) => {
                progress.say(&format!("{name} cannot be built: {}: {}", error.kind, error.message));
                error.traceback.iter().for_each(|traceback| progress.say(traceback));
            }
            Stage::InputCycle { cycle } => progress.say(&format!("{name} cannot be built: {}", describe_cycle(cycle))),
            Stage::WaitingForInput(missing) => progress.say(&format!("{name} cannot be built without its input {missing}")),
            _ => {}
        }
        let Some(summary) = &report.summary else { continue };
        summary.unmatched_overrides.iter().for_each(|unmatched| progress.say(&format!("{name}: {unmatched}")));
        for failure in &summary.failures {
            let attempts = match failure.attempts {
                0 => String::new(),
                1 => " failed after 1 attempt".to_owned(),
                more => format!(" failed after {more} attempts"),
            };
            progress.say(&format!("{name}: the task {}{attempts}: {}", failure.key, failure.exception_text));
            progress.say(&failure.traceback_text);
        }
        if settled(report) != Settled::Persisted {
            continue;
        }
        for output in &summary.outputs {
            let kind = report.outputs.iter().find(|info| info.name == output.name).map_or("", |info| info.type_name.as_str());
            let keys = if output.keys == 1 { "1 key".to_owned() } else { format!("{} keys", output.keys) };
            progress.say(&format!("{name}/{}: {kind}, {keys}, {}", output.name, progress::size(output.nbytes)));
        }
        if let (Some(output), Some(address)) = (summary.outputs.first(), address) {
            progress.say(&format!(
                "  python -c 'from distributed import Client; print(Client(\"{address}\").get_dataset(\"{name}/{}\"))'",
                output.name
            ));
        }
    }
}
