//! Health, metrics, and the keeper over HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::server::KEEPER;

/// What probes are told.
#[derive(Debug, Default)]
pub struct Health {
    is_ready: AtomicBool,
}

impl Health {
    /// The watches have shown what there is: work can be taken.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    registry: Arc<Mutex<Registry>>,
}

/// Serves `/livez`, `/readyz`, `/metrics` and `/keeper.py` until the process ends.
///
/// # Errors
/// When the address is taken.
pub async fn serve(address: SocketAddr, health: Arc<Health>, registry: Arc<Mutex<Registry>>) -> std::io::Result<()> {
    let router = Router::new()
        // That the runtime answers is what it says.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        // Dask loads preloads from URLs as well as from files.
        .route("/keeper.py", get(async || ([(header::CONTENT_TYPE, "text/x-python")], KEEPER)))
        .with_state(Shared { health, registry });
    axum::serve(TcpListener::bind(address).await?, router).await
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    if shared.health.is_ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the watches have not shown yet what there is\n")
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    let registry = shared.registry.lock().unwrap_or_else(PoisonError::into_inner);
    let status = match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}
