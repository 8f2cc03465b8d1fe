//! Decides phase and conditions.

use crate::api::conditions::{self, Setting, Status, reasons};
use crate::api::{PersistedCollectionStatus, Phase};
use crate::dask::exception_type;
use crate::engine::{ReplicaSummary, Summary};
use crate::server::{BuildError, MissingInput, Report, Stage, describe_cycle};

use super::figures::readable_bytes;
use super::{Situation, View, was_persisted, workers};

/// Most overrides that a message names.
const UNMATCHED_SHOWN_MAX: usize = 3;

/// What to say of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) status: Status,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Judgement {
    pub(super) fn new(status: Status, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into() }
    }

    fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::True, reason, message)
    }

    fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::False, reason, message)
    }

    fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Status::Unknown, reason, message)
    }
}

/// Who is to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The operator, or the cluster.
    Working,
    /// A person.
    Stalled,
    /// Nobody.
    Settled,
}

pub(super) struct Verdict {
    pub(super) phase: Phase,
    /// The operator has seen this generation and acts on it.
    pub(super) takes_generation: bool,
    course: Course,
    ready: Judgement,
    source: Option<Judgement>,
    graph: Option<Judgement>,
    workers: Option<Judgement>,
    replicas: Option<Judgement>,
}

impl Verdict {
    /// Whether there is anything to say of copies.
    pub(super) fn is_replicating(&self) -> bool {
        self.replicas.is_some()
    }

    /// The conditions to set; those left out stay as they are.
    pub(super) fn settings(self) -> Vec<Setting> {
        let Self { phase: _, takes_generation: _, course, ready, source, graph, workers, replicas } = self;
        let abnormal = |holds: bool| {
            if holds { Judgement::yes(ready.reason, ready.message.clone()) } else { Judgement::no(ready.reason, "") }
        };
        let reconciling = abnormal(course == Course::Working);
        let stalled = abnormal(course == Course::Stalled);
        let all = [
            (conditions::READY, Some(ready)),
            (conditions::RECONCILING, Some(reconciling)),
            (conditions::STALLED, Some(stalled)),
            (conditions::SOURCE_RESOLVED, source),
            (conditions::GRAPH_ACCEPTED, graph),
            (conditions::WORKERS_AVAILABLE, workers),
            (conditions::REPLICATED, replicas),
        ];
        all.into_iter()
            .filter_map(|(type_, judgement)| judgement.map(|judgement| (type_, judgement)))
            .map(|(type_, Judgement { status, reason, message })| Setting { type_, status, reason, message })
            .collect()
    }
}

pub(super) fn judge(previous: Option<&PersistedCollectionStatus>, view: &View<'_>) -> Verdict {
    match view.situation {
        Situation::Taken => Verdict {
            phase: Phase::Pending,
            takes_generation: false,
            course: Course::Working,
            ready: Judgement::unknown(reasons::ACCEPTED, "the operator looks into it"),
            source: None,
            graph: None,
            workers: None,
            replicas: None,
        },
        Situation::Invalid(error) => Verdict {
            phase: Phase::Failed,
            takes_generation: true,
            course: Course::Stalled,
            ready: Judgement::no(reasons::INVALID_SPEC, error.to_string()),
            source: None,
            graph: Some(Judgement::no(reasons::INVALID_SPEC, error.to_string())),
            workers: None,
            replicas: None,
        },
        Situation::SourceAbsent(absence) => Verdict {
            phase: Phase::Pending,
            takes_generation: true,
            course: Course::Working,
            ready: Judgement::no(absence.reason(), absence.to_string()),
            source: Some(Judgement::no(absence.reason(), absence.to_string())),
            graph: Some(Judgement::unknown(absence.reason(), "waits for the source")),
            workers: None,
            replicas: None,
        },
        Situation::NoScheduler => {
            let message = "the scheduler of this namespace is not up yet";
            Verdict {
                phase: Phase::Pending,
                takes_generation: false,
                course: Course::Working,
                ready: Judgement::unknown(reasons::WAITING_FOR_SCHEDULER, message),
                source: Some(resolved()),
                graph: Some(Judgement::unknown(reasons::WAITING_FOR_SCHEDULER, message)),
                workers: Some(Judgement::unknown(reasons::WAITING_FOR_SCHEDULER, message)),
                replicas: None,
            }
        }
        Situation::Reported => match view.report {
            Some(report) => judge_report(previous, view, report),
            // Whoever makes a view gives the report with it; without one there is nothing to say yet.
            None => judge(previous, &View { situation: Situation::Taken, ..*view }),
        },
        Situation::Releasing => Verdict {
            phase: Phase::Releasing,
            takes_generation: true,
            course: Course::Working,
            ready: Judgement::no(reasons::RELEASING, "the memory of the workers is being freed"),
            source: None,
            graph: None,
            workers: None,
            replicas: None,
        },
    }
}

fn resolved() -> Judgement {
    Judgement::yes(reasons::RESOLVED, "the source is there")
}

fn judge_report(previous: Option<&PersistedCollectionStatus>, view: &View<'_>, report: &Report) -> Verdict {
    match &report.stage {
        Stage::WaitingForWorker { workers_running } => {
            let workers = workers::none_to_build(*workers_running, view);
            let graph = Judgement::unknown(reasons::WAITING_FOR_WORKER, "no running worker can make the graph");
            on_the_way(Phase::Pending, Judgement::no(workers.reason, workers.message.clone()), graph, workers)
        }
        Stage::WaitingForTurn => {
            let graph = Judgement::unknown(reasons::BUILDING, "other collections' graphs are made first");
            let workers = Judgement::unknown(reasons::BUILDING, "not known before the graph");
            on_the_way(Phase::Pending, Judgement::no(graph.reason, graph.message.clone()), graph, workers)
        }
        Stage::WaitingForInput(missing) => judge_missing_input(missing),
        Stage::InputCycle { cycle } => {
            let message = format!("{}; take one of these inputs away", describe_cycle(cycle));
            stalled(Phase::Failed, Judgement::no(reasons::INPUT_CYCLE, message))
        }
        Stage::Building { worker } => {
            let graph = Judgement::unknown(reasons::BUILDING, format!("worker {worker} makes the graph"));
            let workers = Judgement::unknown(reasons::BUILDING, "not known before the graph");
            on_the_way(Phase::Building, Judgement::no(graph.reason, graph.message.clone()), graph, workers)
        }
        Stage::BuildFailed(error) => {
            let reason = build_reason(error);
            let message = build_message(error, view.is_confidential);
            Verdict {
                phase: Phase::Failed,
                takes_generation: true,
                course: Course::Stalled,
                ready: Judgement::no(reason, message.clone()),
                source: Some(resolved()),
                graph: Some(Judgement::no(reason, with_traceback(message, error, view.is_confidential))),
                workers: None,
                replicas: None,
            }
        }
        Stage::Accepted => judge_summary(previous, view, report),
    }
}

fn judge_missing_input(missing: &MissingInput) -> Verdict {
    let message = format!("waits for the input {missing}");
    if missing.is_stuck() {
        return stalled(Phase::Pending, Judgement::no(reasons::WAITING_FOR_INPUT, message));
    }
    let graph = Judgement::unknown(reasons::WAITING_FOR_INPUT, message);
    let workers = Judgement::unknown(reasons::WAITING_FOR_INPUT, "not known before the graph");
    on_the_way(Phase::Pending, Judgement::no(graph.reason, graph.message.clone()), graph, workers)
}

/// There is no graph, and will be none until somebody edits this collection or another.
fn stalled(phase: Phase, graph: Judgement) -> Verdict {
    Verdict {
        phase,
        takes_generation: true,
        course: Course::Stalled,
        ready: graph.clone(),
        source: Some(resolved()),
        graph: Some(graph),
        workers: None,
        replicas: None,
    }
}

fn on_the_way(phase: Phase, ready: Judgement, graph: Judgement, workers: Judgement) -> Verdict {
    Verdict {
        phase,
        takes_generation: true,
        course: Course::Working,
        ready,
        source: Some(resolved()),
        graph: Some(graph),
        workers: Some(workers),
        replicas: None,
    }
}

fn judge_summary(previous: Option<&PersistedCollectionStatus>, view: &View<'_>, report: &Report) -> Verdict {
    let none = Summary::default();
    let summary = report.summary.as_deref().unwrap_or(&none);
    let tasks = summary.tasks;
    let workers = workers::judge(summary, view);
    let unfinished = tasks.waiting + tasks.no_worker + tasks.queued + tasks.processing;
    let outputs = summary.outputs.len();
    // What another graph has not made yet was not lost.
    let is_degraded = was_persisted(previous, view.generation) && !report.is_remade;
    let is_persisted = outputs > 0 && summary.outputs.iter().all(|output| output.in_memory == output.keys);
    let (phase, course, ready) = if is_persisted {
        let what = if outputs == 1 { "the output is".to_owned() } else { format!("all {outputs} outputs are") };
        let message = format!("{what} in memory: {}", readable_bytes(summary.nbytes));
        (Phase::Persisted, Course::Settled, Judgement::yes(reasons::PERSISTED, message))
    } else if tasks.erred > 0 {
        // What does not need the failed task still runs; then it is up to a person.
        let (phase, course) = if unfinished == 0 { (Phase::Failed, Course::Stalled) } else { (Phase::Running, Course::Working) };
        (phase, course, Judgement::no(reasons::TASKS_FAILED, failure_message(summary, view.is_confidential)))
    } else if tasks.no_worker > 0 && workers.status == Status::False {
        let phase = match tasks.processing + tasks.queued {
            _ if is_degraded => Phase::Degraded,
            0 => Phase::Pending,
            _ => Phase::Running,
        };
        (phase, Course::Working, Judgement::no(workers.reason, workers.message.clone()))
    } else if is_degraded {
        let lost = report.lost_workers.last().map(|lost| match &lost.end {
            Some(end) => format!("; {} was lost last: {}", lost.worker, end.reason),
            None => format!("; {} was lost last", lost.worker),
        });
        let message = format!("lost outputs are computed again: {unfinished} tasks to go{}", lost.unwrap_or_default());
        (Phase::Degraded, Course::Working, Judgement::no(reasons::RECOMPUTING, message))
    } else {
        let message = format!("{} of {} tasks are done", tasks.done, tasks.total);
        (Phase::Running, Course::Working, Judgement::no(reasons::RUNNING, message))
    };
    let total = if tasks.total == 1 { "1 task".to_owned() } else { format!("{} tasks", tasks.total) };
    let graph = match &report.missing_input {
        Some(missing) => Judgement::yes(
            reasons::INPUT_MISSING,
            format!("the graph has {total}; it stays as it is while an input is missing: {missing}"),
        ),
        None => Judgement::yes(reasons::GRAPH_ACCEPTED, format!("the graph has {total}{}", unmatched_overrides(summary))),
    };
    Verdict {
        phase,
        takes_generation: true,
        course,
        ready,
        source: Some(resolved()),
        graph: Some(graph),
        workers: Some(workers),
        replicas: summary.replicas.map(judge_replicas),
    }
}

fn judge_replicas(replicas: ReplicaSummary) -> Judgement {
    let ReplicaSummary { wanted, least: _, short, workers } = replicas;
    if workers < u64::from(wanted) {
        let workers = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
        return Judgement::no(reasons::TOO_FEW_WORKERS, format!("{wanted} copies are wanted, and {workers} may hold one"));
    }
    match short {
        0 => Judgement::yes(reasons::REPLICATED, format!("every output key in memory is on {wanted} workers")),
        1 => Judgement::no(reasons::REPLICATING, format!("1 output key in memory is on fewer than {wanted} workers")),
        short => Judgement::no(reasons::REPLICATING, format!("{short} output keys in memory are on fewer than {wanted} workers")),
    }
}

/// What becomes of overrides that match nothing: it is most likely not what their author wants.
fn unmatched_overrides(summary: &Summary) -> String {
    let unmatched = &summary.unmatched_overrides;
    let mut message: String = unmatched.iter().take(UNMATCHED_SHOWN_MAX).map(|one| format!("; {one}")).collect();
    if unmatched.len() > UNMATCHED_SHOWN_MAX {
        message.push_str(&format!("; nor do {} others", unmatched.len() - UNMATCHED_SHOWN_MAX));
    }
    message
}

fn failure_message(summary: &Summary, is_confidential: bool) -> String {
    let Some(first) = summary.failures.first() else {
        return format!("{} tasks failed, or need one that did", summary.tasks.erred);
    };
    let exception = if is_confidential { exception_type(&first.exception_text) } else { &first.exception_text };
    let message = match first.attempts {
        // It did not run, so the text is not the task's: a refused task, an actor that was lost.
        0 => format!("task {}: {}", first.key, first.exception_text),
        1 => format!("task {} failed after 1 attempt, last on {}: {exception}", first.key, first.worker),
        more => format!("task {} failed after {more} attempts, last on {}: {exception}", first.key, first.worker),
    };
    match summary.failures.len() {
        1 => message,
        failures => format!("{message} (and {} more, see status.failures)", failures - 1),
    }
}

fn build_reason(error: &BuildError) -> &'static str {
    match error.kind.as_str() {
        "SyntaxError" => reasons::SYNTAX_ERROR,
        "Raised" => reasons::SOURCE_RAISED,
        "ImportFailed" => reasons::IMPORT_FAILED,
        "NameNotDefined" => reasons::NAME_NOT_DEFINED,
        "NotSerializable" => reasons::NOT_SERIALIZABLE,
        _ => reasons::BUILD_FAILED,
    }
}

/// One line on why the graph could not be made. The source of a Secret may be in its exception's text.
fn build_message(error: &BuildError, is_confidential: bool) -> String {
    let quotes_source = matches!(error.kind.as_str(), "SyntaxError" | "Raised");
    let message = if is_confidential && quotes_source {
        format!("{} (not shown in full: the source is a Secret)", exception_type(&error.message))
    } else {
        error.message.clone()
    };
    match error.line {
        Some(line) if !message.contains("line ") => format!("line {line}: {message}"),
        _ => message,
    }
}

/// With the traceback, where that shows lines of the source; others lead through Dask's own.
fn with_traceback(message: String, error: &BuildError, is_confidential: bool) -> String {
    let shows_source = matches!(error.kind.as_str(), "SyntaxError" | "Raised" | "ImportFailed");
    match &error.traceback {
        Some(traceback) if shows_source && !is_confidential && !traceback.trim().is_empty() => {
            format!("{message}\n{}", traceback.trim_end())
        }
        _ => message,
    }
}
