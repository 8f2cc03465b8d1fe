//! Why no worker takes a task, in words that say what would help.

use crate::api::conditions::{Status, reasons};
use crate::engine::{LabelExpression, Operator, Summary, Unrunnable, WorkerSelector};
use crate::pods::PodFacts;
use crate::server::Refusal;

use super::View;
use super::judge::Judgement;

/// Most pods or workers that a message names.
const NAMES_SHOWN_MAX: usize = 3;

/// The condition WorkersAvailable of a collection whose graph runs.
pub(super) fn judge(summary: &Summary, view: &View<'_>) -> Judgement {
    let judgement = judge_speaking(summary, view);
    let silent = &summary.workers_silent;
    match silent.as_slice() {
        [] => judgement,
        names => {
            let message = format!("{}; nothing is heard of {}", judgement.message, name_some("worker", names));
            Judgement { message, ..judgement }
        }
    }
}

/// Without those of which nothing is heard: their tasks go elsewhere.
fn judge_speaking(summary: &Summary, view: &View<'_>) -> Judgement {
    if let Some(unrunnable) = &summary.unrunnable {
        let (reason, why) = explain(unrunnable, view);
        let tasks = match unrunnable.tasks {
            1 => format!("task {} waits", unrunnable.example),
            tasks => format!("{tasks} tasks, such as {}, wait", unrunnable.example),
        };
        return Judgement::new(Status::False, reason, format!("{tasks} for a worker: {why}"));
    }
    if summary.workers_running == 0 {
        return none_to_build(0, view);
    }
    let message = format!("{} of {} running workers may take its tasks", summary.workers_matching, summary.workers_running);
    Judgement::new(Status::True, reasons::WORKERS_AVAILABLE, message)
}

/// The same while no worker may make the graph; so many run that may not.
pub(super) fn none_to_build(running: usize, view: &View<'_>) -> Judgement {
    let (reason, message) = match view.requirements.and_then(|requirements| requirements.workers.as_ref()) {
        Some(selector) if running > 0 => no_match(selector, running, view),
        _ => no_workers(view),
    };
    Judgement::new(Status::False, reason, message)
}

fn explain(unrunnable: &Unrunnable, view: &View<'_>) -> (&'static str, String) {
    if unrunnable.workers_running == 0 {
        return no_workers(view);
    }
    // What is asked of these tasks, which need not be what is asked of all.
    match &unrunnable.workers {
        Some(selector) if unrunnable.workers_selected == 0 => no_match(selector, unrunnable.workers_running, view),
        selector => insufficient(unrunnable, selector.as_ref()),
    }
}

fn no_workers(view: &View<'_>) -> (&'static str, String) {
    if let Some(refusal) = refusal(view) {
        return (reasons::WORKER_REFUSED, describe_refusal(refusal));
    }
    let meant: Vec<&PodFacts> = view.pods.iter().filter(|pod| pod.is_meant_as_worker && !pod.is_ending).collect();
    if let Some(trouble) = describe_trouble(&meant) {
        return (reasons::WORKER_POD_FAILING, trouble);
    }
    if !meant.is_empty() {
        let names = name_pods(&meant);
        return (reasons::NO_WORKERS, format!("no worker has registered yet; {names} should become one, see its log"));
    }
    let message =
        "no worker runs in this namespace; start pods with `dask worker tls://mainstay-scheduler:8786 --name $(POD_NAME)`";
    (reasons::NO_WORKERS, message.to_owned())
}

fn no_match(selector: &WorkerSelector, running: usize, view: &View<'_>) -> (&'static str, String) {
    let matching: Vec<&PodFacts> = view.pods.iter().filter(|pod| !pod.is_ending && selects(selector, pod)).collect();
    if let Some(refusal) = refusal(view).filter(|refusal| matching.iter().any(|pod| is_of(refusal, pod))) {
        let message = format!("{} (the selector {selector} matches no running worker)", describe_refusal(refusal));
        return (reasons::WORKER_REFUSED, message);
    }
    if let Some(trouble) = describe_trouble(&matching) {
        return (reasons::WORKER_POD_FAILING, format!("{trouble} (the selector {selector} matches no running worker)"));
    }
    if matching.is_empty() {
        let workers = if running == 1 { "1 worker runs".to_owned() } else { format!("{running} workers run") };
        return (reasons::NO_MATCHING_WORKER, format!("the selector {selector} matches no pod; {workers}, none of them has it"));
    }
    let names = name_pods(&matching);
    let message = format!("the selector {selector} matches {names}, but no worker there has registered");
    (reasons::NO_MATCHING_WORKER, message)
}

fn refusal<'a>(view: &View<'a>) -> Option<&'a Refusal> {
    view.report.and_then(|report| report.refusal.as_ref())
}

fn describe_refusal(refusal: &Refusal) -> String {
    format!("worker {} came and was refused: {}", refusal.worker, refusal.reason)
}

fn is_of(refusal: &Refusal, pod: &PodFacts) -> bool {
    refusal.worker == pod.name || pod.ips.contains(&refusal.worker)
}

fn insufficient(unrunnable: &Unrunnable, selector: Option<&WorkerSelector>) -> (&'static str, String) {
    let among = selector.map(|selector| format!(" that matches {selector}")).unwrap_or_default();
    let Some((resource, worker, has)) = &unrunnable.nearest else {
        let message = format!("no worker{among} has the resources {}", unrunnable.resources);
        return (reasons::INSUFFICIENT_RESOURCES, message);
    };
    let needs = unrunnable.resources.get(resource);
    let nearest = if worker.is_empty() || has.is_zero() {
        "no worker declares any".to_owned()
    } else {
        format!("nearest is {worker} with {resource}: {has}")
    };
    (reasons::INSUFFICIENT_RESOURCES, format!("resource {resource}: {needs} — no worker{among} has it; {nearest}"))
}

/// What keeps the first pod in trouble from running, and how many share its fate.
fn describe_trouble(pods: &[&PodFacts]) -> Option<String> {
    let in_trouble = pods.iter().filter(|pod| pod.trouble.is_some()).count();
    let (pod, trouble) = pods.iter().find_map(|pod| Some((pod, pod.trouble.as_ref()?)))?;
    let what = match trouble.reason.as_str() {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => "cannot pull its image",
        "CrashLoopBackOff" => "crashes again and again",
        "Unschedulable" => "finds no node",
        _ => "cannot start",
    };
    let others = if in_trouble > 1 { format!(" (and {} more pods)", in_trouble - 1) } else { String::new() };
    let message = if trouble.message.is_empty() { String::new() } else { format!(": {}", trouble.message) };
    Some(format!("worker pod {} {what}{others}: {}{message}", pod.name, trouble.reason))
}

fn name_pods(pods: &[&PodFacts]) -> String {
    name_some("pod", &pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>())
}

fn name_some<S: AsRef<str>>(kind: &str, all: &[S]) -> String {
    let names = all.iter().take(NAMES_SHOWN_MAX).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match all.len() {
        1 => format!("{kind} {names}"),
        count if count <= NAMES_SHOWN_MAX => format!("{kind}s {names}"),
        count => format!("{kind}s {names} and {} more", count - NAMES_SHOWN_MAX),
    }
}

/// Whether a selector takes a pod; a name may be the pod's or one of its addresses.
fn selects(selector: &WorkerSelector, pod: &PodFacts) -> bool {
    let WorkerSelector { match_labels, match_expressions, names } = selector;
    match_labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
        && match_expressions.iter().all(|expression| holds(expression, pod))
        && (names.is_empty() || names.iter().any(|name| *name == pod.name || pod.ips.contains(name)))
}

fn holds(expression: &LabelExpression, pod: &PodFacts) -> bool {
    let LabelExpression { key, operator, values } = expression;
    let label = pod.labels.get(key);
    match operator {
        Operator::In => label.is_some_and(|label| values.contains(label)),
        Operator::NotIn => label.is_none_or(|label| !values.contains(label)),
        Operator::Exists => label.is_some(),
        Operator::DoesNotExist => label.is_none(),
    }
}
