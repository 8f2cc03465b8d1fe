//! Has workers and nannies take new certificates while they run. Their files change on their own: a mounted Secret does.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tracing::debug;

use crate::comm::Pool;
use crate::dask::WorkerAddress;
use crate::error::chain;
use crate::wire::encode::encode_message;
use crate::wire::messages::Ask;
use crate::wire::pickle::Object;

const SOURCE: &str = include_str!("certificates.py");
const LOADER: &str = "(lambda names: (exec(source, names), names['follow'])[1])({})";

/// The pickle of `follow`: `eval(LOADER, {"source": …})`.
static FOLLOW: LazyLock<Bytes> = LazyLock::new(|| {
    let globals = Object::Dict(vec![(Object::text("source"), Object::text(SOURCE))]);
    Object::call("builtins", "eval", vec![Object::text(LOADER), globals]).dumps()
});

/// Has a worker follow its files from now on, and its nanny.
pub(crate) fn follow(pool: &Arc<Pool>, worker: WorkerAddress, nanny: Option<WorkerAddress>) {
    let servers = [Some((worker, "run_coroutine")), nanny.map(|nanny| (nanny, "run"))];
    for (server, op) in servers.into_iter().flatten() {
        let calling = Arc::clone(pool);
        pool.spawn(async move {
            let ask = Ask::new(op).with("function", FOLLOW.clone()).with("wait", false);
            if let Err(error) = calling.call(&server, encode_message(&ask)).await {
                debug!(%server, error = %chain(&error), "it does not follow its certificates");
            }
        });
    }
}
