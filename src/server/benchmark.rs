//! Has workers measure how quick their memory, their disks and the network between them are.
//!
//! Source: distributed 2026.8.0, scheduler.py: `benchmark_hardware`.

use std::sync::Arc;

use crate::comm::Pool;
use crate::dask::WorkerAddress;
use crate::server::call::{self, OnError, Target, ask_all};
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::value::Value;

impl Namespace {
    /// The RPC `benchmark_hardware`: bandwidths by size, the means of all workers.
    pub(crate) fn benchmark_hardware(&self) -> Reply {
        let workers = self.targets_of_all(false);
        Reply::later(move |namespace, answer| {
            let pool = Arc::clone(&namespace.pool);
            namespace.pool.spawn(async move {
                let measured = benchmark(&pool, workers).await;
                call::reply(answer, &measured.unwrap_or_else(|failed| failed));
            });
        })
    }
}

/// Measures one thing after the other, so that none of it disturbs another.
async fn benchmark(pool: &Pool, workers: Vec<Target>) -> Result<Value, Value> {
    let alone = |op: &'static str| workers.iter().map(|worker| (worker.clone(), ask(op, None))).collect::<Vec<_>>();
    // Those that joined one after the other are often on one host: each is paired with one that joined much later.
    let (first, second) = workers.split_at(workers.len() / 2);
    let pairs = first.iter().zip(second);
    let pairs = pairs.map(|(one, (other, _))| (one.clone(), ask("benchmark_network", Some(other)))).collect();
    let mut measured = Vec::new();
    for (name, asked) in [("disk", alone("benchmark_disk")), ("memory", alone("benchmark_memory")), ("network", pairs)] {
        let replies = ask_all(pool, &asked, OnError::Raise).await?;
        measured.push((name.into(), means(replies.into_iter().map(|(_, reply)| reply))));
    }
    Ok(Value::Map(measured))
}

fn ask(op: &'static str, address: Option<&WorkerAddress>) -> Value {
    let mut fields = vec![("op".into(), op.into()), ("reply".into(), true.into())];
    fields.extend(address.map(|address| ("address".into(), address.as_str().into())));
    Value::Map(fields)
}

/// The mean of each size's numbers, in the order in which they come first.
fn means(replies: impl Iterator<Item = Value>) -> Value {
    let mut by_size: Vec<(Value, Vec<f64>)> = Vec::new();
    for reply in replies {
        for (size, bandwidth) in reply.as_map().unwrap_or_default() {
            let Some(bandwidth) = bandwidth.as_number() else { continue };
            match by_size.iter_mut().find(|(known, _)| known == size) {
                Some((_, bandwidths)) => bandwidths.push(bandwidth),
                None => by_size.push((size.clone(), vec![bandwidth])),
            }
        }
    }
    let mean = |bandwidths: Vec<f64>| bandwidths.iter().sum::<f64>() / bandwidths.len() as f64;
    Value::Map(by_size.into_iter().map(|(size, bandwidths)| (size, mean(bandwidths).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_the_means_by_size() {
        let one = Value::map([("1 kiB", 10.0.into()), ("1 MiB", 4.0.into())]);
        let other = Value::map([("1 kiB", 20.0.into()), ("1 GiB", Value::Nil)]);
        assert_eq!(means([one, other].into_iter()), Value::map([("1 kiB", 15.0.into()), ("1 MiB", 4.0.into())]));
        assert_eq!(means(std::iter::empty()), Value::Map(Vec::new()));
    }
}
