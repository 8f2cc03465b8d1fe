use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{
    Amount, FailureSummary, OutputSummary, ReplicaSummary, Resources, Summary, TaskCounts, UnmatchedOverride, Unrunnable,
    WorkerSelector, WorkerShare,
};
use crate::pods::Trouble;
use crate::server::{BuildError, End, LostWorker, MissingInput, OutputInfo, Refusal, Stage, WhyMissing};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn view<'a>(generation: i64, report: &'a Report) -> View<'a> {
    View {
        generation,
        situation: Situation::Reported,
        report: Some(report),
        is_confidential: false,
        requirements: None,
        pods: &[],
    }
}

fn report(stage: Stage, summary: Option<Summary>) -> Report {
    let outputs = vec![OutputInfo { name: "daily".to_owned(), type_name: "DataFrame".to_owned(), keys: 4 }];
    Report {
        generation: 1,
        revision: "r".to_owned(),
        stage,
        summary: summary.map(Box::new),
        outputs,
        refusal: None,
        lost_workers: Vec::new(),
        missing_input: None,
        is_remade: false,
    }
}

fn summary(in_memory: u64, tasks: TaskCounts) -> Summary {
    Summary {
        tasks,
        nbytes: 1024 * in_memory,
        outputs: vec![OutputSummary { name: "daily".to_owned(), keys: 4, in_memory, erred: 0, nbytes: 1024 * in_memory }],
        workers_running: 2,
        workers_matching: 2,
        ..Summary::default()
    }
}

fn running() -> Report {
    let tasks = TaskCounts { total: 10, done: 3, processing: 2, waiting: 5, memory: 3, ..TaskCounts::default() };
    report(Stage::Accepted, Some(summary(1, tasks)))
}

fn persisted() -> Report {
    let tasks = TaskCounts { total: 10, done: 10, memory: 4, released: 6, ..TaskCounts::default() };
    report(Stage::Accepted, Some(summary(4, tasks)))
}

/// `Ready=False/Running …` of every condition, in order.
fn conditions_of(status: &PersistedCollectionStatus) -> Vec<String> {
    let show = |type_: &str| {
        let condition = find(&status.conditions, type_).unwrap();
        format!("{type_}={}/{}", condition.status, condition.reason)
    };
    conditions::ALL.iter().map(|type_| show(type_)).collect()
}

fn message(status: &PersistedCollectionStatus, type_: &str) -> String {
    find(&status.conditions, type_).unwrap().message.clone()
}

#[test]
fn a_task_that_failed_without_a_run_is_said_in_its_own_words() {
    let mut erred = running();
    let summary = erred.summary.as_mut().unwrap();
    summary.tasks.erred = 1;
    summary.failures = vec![FailureSummary {
        key: TaskKey::from_text("model"),
        exception_text: "the actor was lost with its worker w-1".to_owned(),
        traceback_text: String::new(),
        attempts: 0,
        worker: String::new(),
    }];
    for is_confidential in [false, true] {
        let status = compute(None, &View { is_confidential, ..view(1, &erred) }, at(1));
        assert_eq!(message(&status, conditions::READY), "task model: the actor was lost with its worker w-1");
    }
}

#[test]
fn overrides_that_match_no_task_are_named() {
    let unmatched =
        |keys: &str, closest: Option<&str>| UnmatchedOverride { keys: keys.to_owned(), closest: closest.map(str::to_owned) };
    let mut persisted = persisted();
    let overrides = &mut persisted.summary.as_mut().unwrap().unmatched_overrides;
    *overrides = vec![unmatched("laod-*", Some("load")), unmatched("x", None)];
    let status = compute(None, &view(1, &persisted), at(1));
    assert_eq!(
        message(&status, conditions::GRAPH_ACCEPTED),
        "the graph has 10 tasks; override `laod-*` matches no task (did you mean `load`?); override `x` matches no task"
    );
}

#[test]
fn copies_are_judged_where_they_are_asked_for() {
    let mut persisted = persisted();
    assert_eq!(find(&compute(None, &view(1, &persisted), at(1)).conditions, conditions::REPLICATED), None);
    for (short, workers, expected) in [
        (0, 2, "True/Replicated: every output key in memory is on 2 workers"),
        (3, 2, "False/Replicating: 3 output keys in memory are on fewer than 2 workers"),
        (4, 1, "False/TooFewWorkers: 2 copies are wanted, and 1 worker may hold one"),
    ] {
        let replicas = ReplicaSummary { wanted: 2, least: 1, short, workers };
        persisted.summary.as_mut().unwrap().replicas = Some(replicas);
        let status = compute(None, &view(1, &persisted), at(1));
        let condition = find(&status.conditions, conditions::REPLICATED).unwrap();
        assert_eq!(format!("{}/{}: {}", condition.status, condition.reason, condition.message), expected);
        assert_eq!(status.replicas.as_ref().unwrap().short, short as i64);
        persisted.summary.as_mut().unwrap().replicas = None;
        let after = compute(Some(&status), &view(1, &persisted), at(2));
        assert_eq!((find(&after.conditions, conditions::REPLICATED), after.replicas), (None, None));
    }
}

#[test]
fn lost_workers_are_listed_with_their_reasons() {
    let mut degraded = running();
    let end = |reason: &str| End { reason: reason.to_owned(), message: "in words".to_owned() };
    degraded.lost_workers = vec![
        LostWorker { worker: "w-0".to_owned(), end: None },
        LostWorker { worker: "w-1".to_owned(), end: Some(end("OOMKilled")) },
    ];
    let before = compute(None, &view(1, &persisted()), at(1));
    let status = compute(Some(&before), &view(1, &degraded), at(2));
    let listed: Vec<_> = status.lost_workers.iter().map(|lost| (lost.pod.as_str(), lost.reason.as_str())).collect();
    assert_eq!(listed, [("w-0", "Unknown"), ("w-1", "OOMKilled")]);
    let message = message(&status, conditions::READY);
    assert!(message.ends_with("; w-1 was lost last: OOMKilled"), "{message}");
}

#[test]
fn silent_workers_are_named() {
    let mut running = running();
    running.summary.as_mut().unwrap().workers_silent = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    let status = compute(None, &view(1, &running), at(1));
    let message = message(&status, conditions::WORKERS_AVAILABLE);
    assert_eq!(message, "2 of 2 running workers may take its tasks; nothing is heard of workers a, b, c and 1 more");
}

#[test]
fn a_new_object_is_said_to_be_worked_on() {
    let unasked = report(Stage::Accepted, None);
    let view = View { situation: Situation::Taken, report: None, ..view(1, &unasked) };
    let status = compute(None, &view, at(1));
    assert_eq!(status.phase, Some(Phase::Pending));
    assert_eq!(status.observed_generation, None);
    assert_eq!(
        conditions_of(&status),
        [
            "Ready=Unknown/Accepted",
            "Reconciling=True/Accepted",
            "Stalled=False/Accepted",
            "SourceResolved=Unknown/Accepted",
            "GraphAccepted=Unknown/Accepted",
            "WorkersAvailable=Unknown/Accepted",
        ]
    );
}

#[test]
fn the_way_to_memory() {
    let building = report(Stage::Building { worker: "w-0".to_owned() }, None);
    let status = compute(None, &view(1, &building), at(1));
    assert_eq!((status.phase, status.observed_generation), (Some(Phase::Building), Some(1)));
    assert_eq!(conditions_of(&status)[0], "Ready=False/Building");

    let status = compute(Some(&status), &view(1, &running()), at(2));
    assert_eq!((status.phase, status.progress.as_deref()), (Some(Phase::Running), Some("30%")));
    assert_eq!(message(&status, conditions::READY), "3 of 10 tasks are done");

    let status = compute(Some(&status), &view(1, &persisted()), at(3));
    assert_eq!((status.phase, status.progress.as_deref()), (Some(Phase::Persisted), Some("100%")));
    assert_eq!(
        conditions_of(&status),
        [
            "Ready=True/Persisted",
            "Reconciling=False/Persisted",
            "Stalled=False/Persisted",
            "SourceResolved=True/Resolved",
            "GraphAccepted=True/GraphAccepted",
            "WorkersAvailable=True/WorkersAvailable",
        ]
    );
    assert_eq!(message(&status, conditions::READY), "the output is in memory: 4.0 KiB");
    assert_eq!(status.outputs[0].in_memory, 4);
    let ready = find(&status.conditions, conditions::READY).unwrap();
    assert_eq!(ready.last_transition_time.0, at(3));
}

#[test]
fn the_same_view_later_gives_the_same_status() {
    let status = compute(None, &view(1, &persisted()), at(1));
    assert_eq!(compute(Some(&status), &view(1, &persisted()), at(99)), status);
}

#[test]
fn lost_outputs_degrade_a_collection_until_they_are_back() {
    let status = compute(None, &view(1, &persisted()), at(1));
    let status = compute(Some(&status), &view(1, &running()), at(2));
    assert_eq!(status.phase, Some(Phase::Degraded));
    assert_eq!(conditions_of(&status)[..2], ["Ready=False/Recomputing", "Reconciling=True/Recomputing"]);
    let status = compute(Some(&status), &view(1, &running()), at(3));
    assert_eq!(status.phase, Some(Phase::Degraded));
    assert_eq!(compute(Some(&status), &view(1, &persisted()), at(4)).phase, Some(Phase::Persisted));
}

#[test]
fn a_new_revision_that_runs_is_not_degraded() {
    let status = compute(None, &view(1, &persisted()), at(1));
    let status = compute(Some(&status), &view(2, &running()), at(2));
    assert_eq!((status.phase, status.observed_generation), (Some(Phase::Running), Some(2)));
}

#[test]
fn a_graph_that_follows_its_inputs_is_not_degraded() {
    let status = compute(None, &view(1, &persisted()), at(1));
    let remade = Report { is_remade: true, ..running() };
    let status = compute(Some(&status), &view(1, &remade), at(2));
    assert_eq!(status.phase, Some(Phase::Running));
    assert_eq!(conditions_of(&status)[0], "Ready=False/Running");
}

#[test]
fn the_observed_generation_never_decreases() {
    let status = compute(None, &view(3, &persisted()), at(1));
    assert_eq!(compute(Some(&status), &view(2, &persisted()), at(2)).observed_generation, Some(3));
}

fn failed(unfinished: u64) -> Report {
    let tasks = TaskCounts { total: 10, done: 7, erred: 3 - unfinished, waiting: unfinished, ..TaskCounts::default() };
    let failures = (0..12)
        .map(|index| FailureSummary {
            key: TaskKey::from_text(&format!("clean-{index}")),
            exception_text: "ValueError: bad row 7".to_owned(),
            traceback_text: "x".repeat(5000),
            attempts: 3,
            worker: "w-1".to_owned(),
        })
        .collect();
    report(Stage::Accepted, Some(Summary { failures, ..summary(1, tasks) }))
}

#[test]
fn a_failed_task_stalls_when_nothing_else_can_run() {
    let status = compute(None, &view(1, &failed(1)), at(1));
    assert_eq!(
        conditions_of(&status)[..3],
        ["Ready=False/TasksFailed", "Reconciling=True/TasksFailed", "Stalled=False/TasksFailed"]
    );
    let status = compute(Some(&status), &view(1, &failed(0)), at(2));
    assert_eq!(status.phase, Some(Phase::Failed));
    assert_eq!(
        conditions_of(&status)[..3],
        ["Ready=False/TasksFailed", "Reconciling=False/TasksFailed", "Stalled=True/TasksFailed"]
    );
    assert_eq!(
        message(&status, conditions::READY),
        "task clean-0 failed after 3 attempts, last on w-1: ValueError: bad row 7 (and 11 more, see status.failures)"
    );
    assert_eq!(status.failures.len(), 10);
    assert!(status.failures[0].traceback.len() <= 2048);
}

#[test]
fn nothing_of_a_secret_source_is_shown() {
    let hidden = |report: &Report| {
        let view = View { is_confidential: true, ..view(1, report) };
        serde_json::to_string(&compute(None, &view, at(1))).unwrap()
    };
    assert!(!hidden(&failed(0)).contains("bad row"));
    let mut failed_as_python_shows_it = failed(0);
    if let Some(summary) = &mut failed_as_python_shows_it.summary {
        summary.failures[0].exception_text = "KeyError('hunter2')".to_owned();
    }
    let shown = hidden(&failed_as_python_shows_it);
    assert!(shown.contains("KeyError") && !shown.contains("hunter2"), "{shown}");
    let error = BuildError {
        kind: "Raised".to_owned(),
        message: "KeyError: 'hunter2'".to_owned(),
        traceback: Some("password = 'hunter2'".to_owned()),
        line: Some(3),
    };
    let shown = hidden(&report(Stage::BuildFailed(error), None));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("line 3: KeyError"), "{shown}");
}

#[test]
fn a_source_that_gives_no_graph_waits_for_an_edit() {
    for (kind, reason) in [
        ("SyntaxError", "SyntaxError"),
        ("Raised", "SourceRaised"),
        ("ImportFailed", "ImportFailed"),
        ("NameNotDefined", "NameNotDefined"),
        ("NotSerializable", "NotSerializable"),
        ("TooLarge", "BuildFailed"),
    ] {
        let error = BuildError { kind: kind.to_owned(), message: "m".to_owned(), traceback: None, line: Some(7) };
        let status = compute(None, &view(1, &report(Stage::BuildFailed(error), None)), at(1));
        assert_eq!(conditions_of(&status)[2], format!("Stalled=True/{reason}"));
        assert_eq!(message(&status, conditions::GRAPH_ACCEPTED), "line 7: m");
        assert_eq!(status.phase, Some(Phase::Failed));
    }
}

fn gpu(amount: f64) -> Resources {
    Resources(BTreeMap::from([("GPU".to_owned(), Amount::from_f64(amount).unwrap())]))
}

fn unrunnable(selector: Option<WorkerSelector>, resources: Resources, selected: usize, running: usize) -> Report {
    let nearest = (!resources.is_empty()).then(|| ("GPU".to_owned(), "w-1".to_owned(), Amount::from_f64(1.0).unwrap()));
    let unrunnable = Unrunnable {
        tasks: 12,
        example: TaskKey::from_text("x"),
        workers: selector,
        resources,
        workers_selected: selected,
        nearest,
        workers_running: running,
    };
    let tasks = TaskCounts { total: 12, no_worker: 12, ..TaskCounts::default() };
    let summary = Summary { unrunnable: Some(unrunnable), workers_running: running, ..summary(0, tasks) };
    report(Stage::Accepted, Some(summary))
}

fn nvme() -> WorkerSelector {
    WorkerSelector { match_labels: BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]), ..WorkerSelector::default() }
}

fn pod(name: &str, labels: &[(&str, &str)], trouble: Option<&str>) -> PodFacts {
    PodFacts {
        name: name.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        is_meant_as_worker: true,
        trouble: trouble.map(|reason| Trouble { reason: reason.to_owned(), message: "no such image".to_owned() }),
        ..PodFacts::default()
    }
}

#[test]
fn a_task_that_no_worker_takes_names_what_is_missing() {
    let cases = [
        (
            unrunnable(Some(nvme()), Resources::default(), 0, 3),
            vec![],
            "NoMatchingWorker",
            "12 tasks, such as x, wait for a worker: the selector disk=nvme matches no pod; 3 workers run, none of them has it",
        ),
        (
            unrunnable(Some(nvme()), Resources::default(), 0, 3),
            vec![pod("w-1", &[("disk", "nvme")], Some("ImagePullBackOff"))],
            "WorkerPodFailing",
            "12 tasks, such as x, wait for a worker: worker pod w-1 cannot pull its image: ImagePullBackOff: no such image (the selector \
             disk=nvme matches no running worker)",
        ),
        (
            unrunnable(Some(nvme()), Resources::default(), 0, 3),
            vec![pod("w-1", &[("disk", "nvme")], None)],
            "NoMatchingWorker",
            "12 tasks, such as x, wait for a worker: the selector disk=nvme matches pod w-1, but no worker there has registered",
        ),
        (
            unrunnable(None, gpu(2.0), 3, 3),
            vec![],
            "InsufficientResources",
            "12 tasks, such as x, wait for a worker: resource GPU: 2 — no worker has it; nearest is w-1 with GPU: 1",
        ),
        (
            unrunnable(None, Resources::default(), 0, 0),
            vec![pod("w-1", &[], Some("ErrImageNeverPull"))],
            "WorkerPodFailing",
            "12 tasks, such as x, wait for a worker: worker pod w-1 cannot pull its image: ErrImageNeverPull: no such image",
        ),
        (
            unrunnable(None, Resources::default(), 0, 0),
            vec![],
            "NoWorkers",
            "12 tasks, such as x, wait for a worker: no worker runs in this namespace; start pods with `dask worker \
             tls://mainstay-scheduler:8786 --name $(POD_NAME)`",
        ),
    ];
    for (report, pods, reason, text) in cases {
        let status = compute(None, &View { pods: &pods, ..view(1, &report) }, at(1));
        assert_eq!(conditions_of(&status)[5], format!("WorkersAvailable=False/{reason}"));
        assert_eq!(conditions_of(&status)[..2], [format!("Ready=False/{reason}"), format!("Reconciling=True/{reason}")]);
        assert_eq!(message(&status, conditions::READY), text);
        assert_eq!(status.phase, Some(Phase::Pending));
    }
}

#[test]
fn a_worker_that_was_refused_explains_why_none_is_there() {
    let refused = |report: Report| {
        let refusal = Refusal { worker: "w-1".to_owned(), reason: "it runs distributed 2024.1.0".to_owned() };
        Report { refusal: Some(refusal), ..report }
    };
    let told = "worker w-1 came and was refused: it runs distributed 2024.1.0";
    // Its pod crashes because of it, which explains less.
    let crashing = [pod("w-1", &[("disk", "nvme")], Some("CrashLoopBackOff"))];
    for (report, said) in [
        (report(Stage::WaitingForWorker { workers_running: 0 }, None), told.to_owned()),
        (unrunnable(None, Resources::default(), 0, 0), format!("12 tasks, such as x, wait for a worker: {told}")),
        (
            unrunnable(Some(nvme()), Resources::default(), 0, 3),
            format!("12 tasks, such as x, wait for a worker: {told} (the selector disk=nvme matches no running worker)"),
        ),
    ] {
        let report = refused(report);
        let status = compute(None, &View { pods: &crashing, ..view(1, &report) }, at(1));
        assert_eq!(conditions_of(&status)[5], "WorkersAvailable=False/WorkerRefused");
        assert_eq!(message(&status, conditions::READY), said);
    }
    // It is not one of those that are asked for.
    let report = refused(unrunnable(Some(nvme()), Resources::default(), 0, 3));
    let status = compute(None, &view(1, &report), at(1));
    assert_eq!(conditions_of(&status)[5], "WorkersAvailable=False/NoMatchingWorker");
}

fn missing(why: WhyMissing) -> MissingInput {
    MissingInput { collection: "base-table".to_owned(), output: "base".to_owned(), why }
}

#[test]
fn an_input_that_may_still_come_is_waited_for() {
    for (why, said) in [
        (WhyMissing::NotBuilt, "its graph is being made"),
        (
            WhyMissing::NoCollection { close: None },
            "there is no PersistedCollection `base-table`, or its own status says why it cannot be built",
        ),
    ] {
        let status = compute(None, &view(1, &report(Stage::WaitingForInput(missing(why)), None)), at(1));
        assert_eq!((status.phase, status.observed_generation), (Some(Phase::Pending), Some(1)));
        assert_eq!(
            conditions_of(&status),
            [
                "Ready=False/WaitingForInput",
                "Reconciling=True/WaitingForInput",
                "Stalled=False/WaitingForInput",
                "SourceResolved=True/Resolved",
                "GraphAccepted=Unknown/WaitingForInput",
                "WorkersAvailable=Unknown/WaitingForInput",
            ]
        );
        assert_eq!(message(&status, conditions::READY), format!("waits for the input base-table/base: {said}"));
    }
}

#[test]
fn an_input_that_cannot_come_by_itself_stalls() {
    let failed = WhyMissing::BuildFailed { kind: "SyntaxError".to_owned(), line: Some(3) };
    let stuck = report(Stage::WaitingForInput(missing(failed.clone())), None);
    let status = compute(None, &view(1, &stuck), at(1));
    assert_eq!(
        conditions_of(&status)[..5],
        [
            "Ready=False/WaitingForInput",
            "Reconciling=False/WaitingForInput",
            "Stalled=True/WaitingForInput",
            "SourceResolved=True/Resolved",
            "GraphAccepted=False/WaitingForInput",
        ]
    );
    let said = "its collection failed: SyntaxError in line 3; the status of `base-table` says more";
    assert_eq!(message(&status, conditions::STALLED), format!("waits for the input base-table/base: {said}"));
    // So does what waits behind it.
    let root = Box::new(missing(failed));
    let behind = MissingInput { collection: "next".to_owned(), output: "y".to_owned(), why: WhyMissing::Behind(root) };
    let status = compute(None, &view(1, &report(Stage::WaitingForInput(behind), None)), at(1));
    assert_eq!(conditions_of(&status)[2], "Stalled=True/WaitingForInput");
    let waits = format!("waits for the input next/y: its collection waits for the input base-table/base: {said}");
    assert_eq!(message(&status, conditions::READY), waits);
}

#[test]
fn a_cycle_of_inputs_is_named_until_it_is_gone() {
    let cycle = report(Stage::InputCycle { cycle: vec!["a".to_owned(), "b".to_owned()] }, None);
    let status = compute(None, &view(1, &cycle), at(1));
    assert_eq!(status.phase, Some(Phase::Failed));
    assert_eq!(
        conditions_of(&status)[..5],
        [
            "Ready=False/InputCycle",
            "Reconciling=False/InputCycle",
            "Stalled=True/InputCycle",
            "SourceResolved=True/Resolved",
            "GraphAccepted=False/InputCycle",
        ]
    );
    let said = "inputs form a cycle: a → b → a; take one of these inputs away";
    assert_eq!(message(&status, conditions::GRAPH_ACCEPTED), said);
    let told = crate::controller::events::notes(None, &status);
    let told: Vec<_> = told.iter().map(|note| (note.is_warning, note.reason.as_str(), note.text.as_str())).collect();
    assert_eq!(told, [(true, "InputCycle", said)]);
    let status = compute(Some(&status), &view(1, &persisted()), at(2));
    assert_eq!(conditions_of(&status)[..3], ["Ready=True/Persisted", "Reconciling=False/Persisted", "Stalled=False/Persisted"]);
}

#[test]
fn what_is_in_memory_stays_ready_when_its_input_goes() {
    let status = compute(None, &view(1, &persisted()), at(1));
    let gone = Report { missing_input: Some(missing(WhyMissing::NoCollection { close: None })), ..persisted() };
    let later = compute(Some(&status), &view(1, &gone), at(2));
    assert_eq!(later.phase, Some(Phase::Persisted));
    assert_eq!(conditions_of(&later)[4], "GraphAccepted=True/InputMissing");
    assert_eq!(conditions_of(&later)[..4], conditions_of(&status)[..4]);
    let said = "the graph has 10 tasks; it stays as it is while an input is missing: base-table/base: there is no \
                PersistedCollection `base-table`, or its own status says why it cannot be built";
    assert_eq!(message(&later, conditions::GRAPH_ACCEPTED), said);
    let told = crate::controller::events::notes(Some(&status), &later);
    assert_eq!(told.iter().map(|note| (note.is_warning, note.reason.as_str())).collect::<Vec<_>>(), [(true, "InputMissing")]);
}

#[test]
fn what_a_new_operator_goes_on_from_stays_until_it_does() {
    let retries = crate::engine::RetrySummary { used: 2, ..Default::default() };
    let counted = Summary { retries, generation: 7, ..summary(1, TaskCounts::default()) };
    let before = compute(None, &view(1, &report(Stage::Accepted, Some(counted))), at(1));
    let waiting = report(Stage::WaitingForWorker { workers_running: 0 }, None);
    let status = compute(Some(&before), &view(1, &waiting), at(2));
    assert_eq!((status.retries.as_ref(), status.priority.as_ref()), (before.retries.as_ref(), before.priority.as_ref()));
    assert_eq!(status.tasks, None);
    // An edit makes it another graph.
    let status = compute(Some(&before), &view(2, &waiting), at(3));
    assert_eq!((status.retries, status.priority), (None, None));
}

#[test]
fn lists_are_bounded_whatever_the_summary() {
    let share = |index| WorkerShare {
        address: WorkerAddress::new(format!("tcp://10.0.0.{index}:1")),
        name: "w".repeat(300),
        pod: None,
        tasks: 1,
        nbytes: 1,
    };
    let crowded = Summary { workers: (0..40).map(share).collect(), workers_total: 40, ..summary(4, TaskCounts::default()) };
    let status = compute(None, &view(1, &report(Stage::Accepted, Some(crowded))), at(1));
    assert_eq!((status.workers.len(), status.worker_count), (16, Some(40)));
    assert!(status.workers[0].pod.len() <= 253);
}
