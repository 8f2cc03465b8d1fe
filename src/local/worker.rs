//! Child `dask worker` processes of this machine.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::local::args::LocalArgs;
use crate::local::offer::Offer;
use crate::local::tls::Files;

/// A worker that was told to end is killed after this time.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker that ends sooner than this after its start did not get along with something.
const SETTLED_AFTER: Duration = Duration::from_secs(20);
/// Starts in a row that may fail so.
const FAILURES_MAX: u32 = 3;
/// How much of a worker's log is shown when it does not start.
const LOG_TAIL_BYTES: u64 = 2000;

/// What every child worker is started with.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    python: PathBuf,
    scheduler: String,
    threads: u32,
    resources: String,
    tls: Option<Files>,
    directory: PathBuf,
}

impl Recipe {
    /// Finds a Python that has distributed.
    pub(crate) async fn find(args: &LocalArgs, offer: &Offer, scheduler: String, directory: &Path) -> Result<Self> {
        let candidates = match &args.python {
            Some(python) => vec![python.clone()],
            None => vec![PathBuf::from("python3"), PathBuf::from("python")],
        };
        for python in &candidates {
            let import = Command::new(python)
                .args(["-c", "import dask, distributed"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .await;
            if import.is_ok_and(|status| status.success()) {
                let resources = offer.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
                let resources = resources.collect::<Vec<_>>().join(" ");
                let (tls, directory) = (Files::of(args), directory.to_owned());
                return Ok(Self { python: python.clone(), scheduler, threads: args.threads, resources, tls, directory });
            }
        }
        let tried = candidates.iter().map(|python| python.display().to_string()).collect::<Vec<_>>().join(" and ");
        bail!(
            "{tried} cannot import dask and distributed: activate an environment that has them, name its Python with \
             --python, or use --workers 0 and connect workers yourself"
        );
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn start(&self, name: &str) -> Result<Child> {
        let log = File::create(self.log(name)).context("failed to create a worker's log")?;
        let mut command = Command::new(&self.python);
        command.args(["-m", "distributed.cli.dask_worker"]);
        command.arg(&self.scheduler).args(["--name", name, "--no-nanny", "--no-dashboard"]);
        command.args(["--nthreads", &self.threads.to_string()]).arg("--local-directory").arg(&self.directory);
        if !self.resources.is_empty() {
            command.args(["--resources", &self.resources]);
        }
        command.args(self.tls.iter().flat_map(Files::flags));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // Ctrl-C is for us: we end the workers in our own order.
        command.process_group(0);
        command.spawn().with_context(|| format!("failed to start {}", self.python.display()))
    }

    fn log_tail(&self, name: &str) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.log(name)) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            // What cannot be read is not shown.
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)));
            let _ = file.read_to_string(&mut text);
        }
        text
    }
}

/// Keeps one worker running until `stop` says otherwise.
///
/// # Errors
/// When it does not stay up.
pub(crate) async fn keep(recipe: Recipe, name: String, mut stop: watch::Receiver<bool>) -> Result<()> {
    let mut failures = 0;
    loop {
        let mut child = recipe.start(&name)?;
        let started = Instant::now();
        let status = tokio::select! {
            status = child.wait() => status?,
            () = stopped(&mut stop) => return end(child).await,
        };
        failures = if started.elapsed() < SETTLED_AFTER { failures + 1 } else { 0 };
        if failures == FAILURES_MAX {
            bail!("the worker {name} does not stay up ({status}); the end of its log:\n{}", recipe.log_tail(&name));
        }
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            () = stopped(&mut stop) => return Ok(()),
        }
    }
}

/// Waits until everything is to end, also by a panic elsewhere.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender is gone when the program ends.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn end(mut child: Child) -> Result<()> {
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    if timeout(END_TIMEOUT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}
