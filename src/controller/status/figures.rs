//! The numbers of a status, within its limits.

use crate::api::conditions::printable;
use crate::api::limits::{
    FAILURES_MAX, LOST_WORKERS_MAX, OUTPUTS_MAX, RETRIED_MAX, STATUS_EXCEPTION_LENGTH_MAX, STATUS_KEY_LENGTH_MAX,
    STATUS_TRACEBACK_LENGTH_MAX, WORKERS_MAX,
};
use crate::api::{
    FailureStatus, LostWorkerStatus, OutputStatus, PersistedCollectionStatus, PriorityStatus, ReplicasStatus, RetriesStatus,
    TaskRetriesStatus, TasksStatus, WorkerStatus,
};
use crate::dask::exception_type;
use crate::engine::{FailureSummary, ReplicaSummary, RetrySummary, TaskCounts, WorkerShare};
use crate::server::{End, LostWorker, Report};

/// Of a worker whose pod does not say why it ended.
const UNKNOWN: &str = "Unknown";
/// Longest name of a worker, an output or a type.
const NAME_LENGTH_MAX: usize = 253;

/// Sets every figure by the report; without a graph there are none.
///
/// Only what a new operator goes on from stays until it does, while `goes_on`: the spec is the one of the last status.
pub(super) fn fill(status: &mut PersistedCollectionStatus, report: Option<&Report>, is_confidential: bool, goes_on: bool) {
    let PersistedCollectionStatus {
        observed_generation: _,
        phase: _,
        conditions: _,
        progress,
        tasks,
        retries,
        priority,
        matching_workers,
        worker_count,
        workers,
        lost_workers,
        replicas,
        nbytes,
        size,
        outputs,
        failures,
    } = status;
    let summary = report.and_then(|report| report.summary.as_deref());
    *progress = summary.and_then(|summary| show_progress(summary.tasks));
    *tasks = summary.map(|summary| count(summary.tasks));
    if let Some(summary) = summary {
        *retries = Some(show_retries(&summary.retries));
        *priority = Some(PriorityStatus {
            user: summary.user_priority,
            generation: whole(summary.generation),
            position: summary.position.map(whole),
        });
    } else if !goes_on {
        (*retries, *priority) = (None, None);
    } else if let Some(priority) = priority {
        priority.position = None;
    }
    *matching_workers = summary.map(|summary| whole(summary.workers_matching as u64));
    *worker_count = summary.map(|summary| whole(summary.workers_total as u64));
    *workers = summary.map(|summary| summary.workers.iter().take(WORKERS_MAX).map(show_worker).collect()).unwrap_or_default();
    let lost = report.map_or(&[][..], |report| &report.lost_workers);
    *lost_workers = lost.iter().take(LOST_WORKERS_MAX).map(show_lost).collect();
    *replicas = summary.and_then(|summary| summary.replicas).map(show_replicas);
    *nbytes = summary.map(|summary| whole(summary.nbytes));
    *size = summary.map(|summary| readable_bytes(summary.nbytes));
    *outputs = report.map(show_outputs).unwrap_or_default();
    let show = |failure| show_failure(failure, is_confidential);
    *failures = summary.map(|summary| summary.failures.iter().take(FAILURES_MAX).map(show).collect()).unwrap_or_default();
}

/// `1.2 GiB`.
pub(super) fn readable_bytes(nbytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if nbytes < 1024 {
        return format!("{nbytes} B");
    }
    let mut number = nbytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while number >= 1023.95 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// Rounded down: 100% is said only of what is done.
fn show_progress(tasks: TaskCounts) -> Option<String> {
    (tasks.total > 0).then(|| format!("{}%", u128::from(tasks.done.min(tasks.total)) * 100 / u128::from(tasks.total)))
}

fn count(tasks: TaskCounts) -> TasksStatus {
    let TaskCounts { total, released, waiting, no_worker, queued, processing, memory, erred, done: _ } = tasks;
    TasksStatus {
        total: whole(total),
        released: whole(released),
        waiting: whole(waiting),
        no_worker: whole(no_worker),
        queued: whole(queued),
        processing: whole(processing),
        memory: whole(memory),
        erred: whole(erred),
    }
}

fn show_retries(retries: &RetrySummary) -> RetriesStatus {
    let RetrySummary { limit, used, exhausted, worker_lost, tasks } = retries;
    let tasks = tasks.iter().take(RETRIED_MAX).map(|(key, failed)| TaskRetriesStatus {
        key: head(&printable(key.to_string()), STATUS_KEY_LENGTH_MAX),
        failed: i64::from(*failed),
    });
    RetriesStatus {
        limit: i64::from(*limit),
        used: whole(*used),
        exhausted: whole(*exhausted),
        worker_lost: whole(*worker_lost),
        tasks: tasks.collect(),
    }
}

fn show_lost(lost: &LostWorker) -> LostWorkerStatus {
    let (reason, message) = match &lost.end {
        Some(End { reason, message }) => (reason.as_str(), message.as_str()),
        None => (UNKNOWN, "its connection ended, and its pod does not say why"),
    };
    LostWorkerStatus {
        pod: head(&lost.worker, NAME_LENGTH_MAX),
        reason: head(reason, NAME_LENGTH_MAX),
        message: head(message, STATUS_EXCEPTION_LENGTH_MAX),
    }
}

fn show_replicas(replicas: ReplicaSummary) -> ReplicasStatus {
    let ReplicaSummary { wanted, least, short, workers: _ } = replicas;
    ReplicasStatus { wanted: i64::from(wanted), least: i64::from(least), short: whole(short) }
}

fn show_worker(share: &WorkerShare) -> WorkerStatus {
    WorkerStatus {
        pod: head(share.pod.as_deref().unwrap_or(&share.name), NAME_LENGTH_MAX),
        address: head(share.address.as_str(), NAME_LENGTH_MAX),
        tasks: whole(share.tasks),
        nbytes: whole(share.nbytes),
    }
}

fn show_outputs(report: &Report) -> Vec<OutputStatus> {
    let counted = |name: &str| report.summary.iter().flat_map(|summary| &summary.outputs).find(|output| output.name == name);
    let outputs = report.outputs.iter().take(OUTPUTS_MAX).map(|output| OutputStatus {
        name: head(&output.name, NAME_LENGTH_MAX),
        type_name: head(&output.type_name, NAME_LENGTH_MAX),
        keys: whole(output.keys),
        in_memory: counted(&output.name).map_or(0, |counted| whole(counted.in_memory)),
        nbytes: counted(&output.name).map_or(0, |counted| whole(counted.nbytes)),
    });
    outputs.collect()
}

fn show_failure(failure: &FailureSummary, is_confidential: bool) -> FailureStatus {
    let FailureSummary { key, exception_text, traceback_text, attempts, worker } = failure;
    // Of a task that did not run, the text is not the task's.
    let (exception, traceback) = if is_confidential && *attempts > 0 {
        (exception_type(exception_text), "not shown: the source is a Secret")
    } else {
        (exception_text.as_str(), traceback_text.as_str())
    };
    FailureStatus {
        key: head(&printable(key.to_string()), STATUS_KEY_LENGTH_MAX),
        exception: head(exception, STATUS_EXCEPTION_LENGTH_MAX),
        attempts: i64::from(*attempts),
        worker: head(worker, NAME_LENGTH_MAX),
        traceback: tail(traceback, STATUS_TRACEBACK_LENGTH_MAX),
    }
}

/// The beginning of a text that is too long.
fn head(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max - '…'.len_utf8())])
}

/// The end of a text that is too long: where a traceback says what happened.
fn tail(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("…{}", &text[text.ceil_char_boundary(text.len() - max + '…'.len_utf8())..])
}

/// A count for JSON; none comes near the limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_people_read_them() {
        for (nbytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(readable_bytes(nbytes), shown, "{nbytes}");
        }
    }

    #[test]
    fn all_done_and_nothing_else_is_a_hundred_percent() {
        let progress = |done, total| show_progress(TaskCounts { done, total, ..TaskCounts::default() });
        assert_eq!(progress(99_999, 100_000).as_deref(), Some("99%"));
        assert_eq!(progress(100_000, 100_000).as_deref(), Some("100%"));
        assert_eq!(progress(0, 0), None);
    }

    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(head(&"ä".repeat(10), 9), "äää…");
        assert_eq!(tail(&"ä".repeat(10), 9), "…äää");
        assert_eq!(tail("short", 9), "short");
    }
}
