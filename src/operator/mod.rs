//! The controller with its servers, in a cluster: wires everything together.

mod admission;
mod args;
mod certificates;
mod lease;
mod leases;
mod namespaces;
mod secrets;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

pub use args::OperatorArgs;

use crate::controller::{self, Changes, Servers};
use crate::operator::lease::Identity;
use crate::operator::leases::Leases;
use crate::operator::namespaces::Namespaces;
use crate::pods::{self, SharedIndex};
use crate::telemetry::{self, Health};

/// How long the last statuses may take to be written.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// How long Leases may take to be given back: whoever waits for them takes them soon after.
const GIVING_BACK_MAX: Duration = Duration::from_secs(4);

/// Runs the operator until it is told to end.
///
/// # Errors
/// When there is no cluster to talk to, a port is taken, or a part of it ends by itself.
pub async fn run(args: OperatorArgs) -> Result<()> {
    telemetry::log_to_stdout(args.log_format, &args.log_level);
    let client = Client::try_default().await.context("failed to find a cluster: no kubeconfig, and not in a pod")?;
    let kubernetes = client.apiserver_version().await.context("failed to reach the API server")?;
    info!(version = env!("CARGO_PKG_VERSION"), kubernetes = %kubernetes.git_version, "starting");

    let health = Arc::new(Health::default());
    let servers = Servers::default();
    let (reports, held) = (servers.clone(), servers.clone());
    let registry = telemetry::registry(Box::new(move || reports.reports()), Box::new(move || held.held()));
    let registry = Arc::new(Mutex::new(registry));
    let http = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), args.http_port);
    let serving_http = telemetry::serve(http, Arc::clone(&health), registry);

    let index = SharedIndex::default();
    let (pods_changed, pod_changes) = mpsc::unbounded_channel();
    let leases = Arc::new(Leases::new(client.clone(), Identity::new(args.pod_name.clone(), random_number())));
    let scopes = controller::scopes(&args.namespaces);
    // They end with this set.
    let mut watches = JoinSet::new();
    for scope in scopes.iter().cloned() {
        watches.spawn(pods::watch::run(client.clone(), scope.clone(), Arc::clone(&index), pods_changed.clone()));
        let leases = Arc::clone(&leases);
        watches.spawn(async move { leases.watch(scope).await });
    }
    if args.watch_nodes {
        watches.spawn(pods::watch::run_nodes(client.clone(), Arc::clone(&index), pods_changed.clone()));
    }
    let (reports, reported) = mpsc::unbounded_channel();
    let (changed, namespaces) = mpsc::unbounded_channel();
    let context = Arc::new(controller::Context::new(client.clone(), args.pod_name.clone(), servers.clone(), Arc::clone(&index)));
    let controlling = controller::run(Arc::clone(&context), args.namespaces.clone(), Changes { reports: reported, namespaces });
    let namespaces = Arc::new(Namespaces { client, args, index, leases: Arc::clone(&leases), servers, reports, changed });
    let serving = Arc::clone(&namespaces).run(pod_changes);
    // One that is ready can take over at once.
    let watching = async {
        tokio::join!(context.listed(scopes.len()), leases.listed(scopes.len()));
        health.set_ready();
        std::future::pending().await
    };

    let mut running = Box::pin(async {
        tokio::select! {
            result = serving => result,
            () = controlling => anyhow::bail!("the controller has ended by itself"),
            result = serving_http => result.with_context(|| format!("failed to serve HTTP on {http}")),
            () = watching => Ok(()),
        }
    });
    tokio::select! {
        result = &mut running => result,
        result = told_to_end() => {
            info!("ending");
            // The next operator goes on from what the statuses say. Workers are told nothing: their comms end with the process,
            // and those with the keeper wait for it.
            context.end();
            if timeout(LAST_WORDS_MAX, &mut running).await.is_err() {
                warn!("not all statuses could be written");
            }
            // Nothing is renewed any more.
            drop(running);
            if timeout(GIVING_BACK_MAX, namespaces.give_back()).await.is_err() {
                warn!("not all Leases could be given back");
            }
            result
        }
    }
}

/// One that no other process has.
fn random_number() -> u64 {
    // The seeds of hash maps are random.
    RandomState::new().build_hasher().finish()
}

async fn told_to_end() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
