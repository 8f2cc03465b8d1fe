//! Metrics: what the reports of all servers sum up to, a series a namespace and state, never a name or a key.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::server::{Report, Stage};

/// Gives every report there is, with its namespace.
pub(super) type Reports = Box<dyn Fn() -> Vec<(String, Arc<Report>)> + Send + Sync>;

/// Gives the namespaces that this process looks after.
pub(super) type Held = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// The registry of one process.
pub fn registry(reports: Reports, held: Held) -> Registry {
    let mut registry = Registry::with_prefix("mainstay");
    registry.register("build", "The version of Mainstay", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    registry.register_collector(Box::new(Collections { reports, held }));
    registry
}

struct Collections {
    reports: Reports,
    held: Held,
}

/// The sums of one namespace.
#[derive(Default)]
struct Sums {
    stages: BTreeMap<&'static str, u64>,
    tasks: BTreeMap<&'static str, u64>,
    memory: u64,
    retries: BTreeMap<&'static str, u64>,
}

impl fmt::Debug for Collections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collections")
    }
}

impl Collector for Collections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut namespaces: BTreeMap<String, Sums> = BTreeMap::new();
        for (namespace, report) in (self.reports)() {
            namespaces.entry(namespace).or_default().add(&report);
        }
        let by_label = |label: &'static str, counts: fn(&Sums) -> &BTreeMap<&'static str, u64>| {
            let rows = namespaces.iter().flat_map(move |(namespace, sums)| {
                counts(sums)
                    .iter()
                    .map(move |(value, count)| (vec![("namespace", namespace.clone()), (label, (*value).to_owned())], *count))
            });
            rows.collect::<Vec<_>>()
        };
        let memory = namespaces.iter().map(|(namespace, sums)| (vec![("namespace", namespace.clone())], sums.memory)).collect();
        let held = (self.held)().into_iter().map(|namespace| (vec![("namespace", namespace)], 1)).collect();
        write(&mut encoder, "namespace_held", "1 for each namespace whose Lease this process has", None, held)?;
        write(
            &mut encoder,
            "collections",
            "PersistedCollections by how far they are",
            None,
            by_label("stage", |sums| &sums.stages),
        )?;
        write(
            &mut encoder,
            "tasks",
            "Tasks of collections by state, named as in Dask",
            None,
            by_label("state", |sums| &sums.tasks),
        )?;
        write(&mut encoder, "outputs_memory", "Memory that the outputs take, one replica each", Some(&Unit::Bytes), memory)?;
        let retries = by_label("cause", |sums| &sums.retries);
        write(&mut encoder, "tasks_repeated", "Runs of tasks that were repeated, by cause", None, retries)
    }
}

impl Sums {
    fn add(&mut self, report: &Report) {
        let stage = match report.stage {
            Stage::WaitingForWorker { .. } | Stage::WaitingForTurn | Stage::WaitingForInput(_) => "waiting",
            Stage::Building { .. } => "building",
            Stage::BuildFailed(_) | Stage::InputCycle { .. } => "build-failed",
            Stage::Accepted => "accepted",
        };
        *self.stages.entry(stage).or_default() += 1;
        let Some(summary) = &report.summary else { return };
        let tasks = &summary.tasks;
        let states = [
            ("released", tasks.released),
            ("waiting", tasks.waiting),
            ("no-worker", tasks.no_worker),
            ("queued", tasks.queued),
            ("processing", tasks.processing),
            ("memory", tasks.memory),
            ("erred", tasks.erred),
        ];
        for (state, count) in states {
            *self.tasks.entry(state).or_default() += count;
        }
        for (cause, count) in [("exception", summary.retries.used), ("worker-lost", summary.retries.worker_lost)] {
            *self.retries.entry(cause).or_default() += count;
        }
        self.memory += summary.nbytes;
    }
}

type Row = (Vec<(&'static str, String)>, u64);

fn write(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, rows: Vec<Row>) -> fmt::Result {
    let gauge = ConstGauge::new(0_i64);
    let mut encoder = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
    for (labels, value) in rows {
        let encoder = encoder.encode_family(&labels)?;
        ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Summary, TaskCounts};

    #[test]
    fn reports_are_summed_up_by_namespace() {
        let tasks = TaskCounts { total: 3, memory: 2, erred: 1, ..TaskCounts::default() };
        let summary = Summary { tasks, nbytes: 10, ..Summary::default() };
        let report = Report {
            generation: 1,
            revision: String::new(),
            stage: Stage::Accepted,
            summary: Some(Box::new(summary)),
            outputs: Vec::new(),
            refusal: None,
            lost_workers: Vec::new(),
            missing_input: None,
            is_remade: false,
        };
        let report = Arc::new(report);
        let registry = registry(
            Box::new(move || vec![("a".to_owned(), Arc::clone(&report)), ("a".to_owned(), Arc::clone(&report))]),
            Box::new(|| vec!["a".to_owned()]),
        );
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"mainstay_namespace_held{namespace="a"} 1"#,
            r#"mainstay_collections{namespace="a",stage="accepted"} 2"#,
            r#"mainstay_tasks{namespace="a",state="memory"} 4"#,
            r#"mainstay_outputs_memory_bytes{namespace="a"} 20"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
