//! Instructions and summaries as text.

use mainstay::dask::{Priority, TaskKey};
use mainstay::engine::{CollectionId, ComputeTask, Engine, Exception, Instruction, ReplicaSummary, Summary, WorkerId};

/// The names of workers, in the order they joined.
#[derive(Default)]
pub(crate) struct Names(Vec<String>);

impl Names {
    pub(crate) fn add_worker(&mut self, name: &str) -> WorkerId {
        self.0.push(name.to_owned());
        WorkerId(self.0.len() as u32)
    }

    /// The last to join under that name; one that never did has a number that nobody else has.
    pub(crate) fn id_of_worker(&self, name: &str) -> WorkerId {
        self.0.iter().rposition(|known| known == name).map_or(WorkerId(999), |index| WorkerId(index as u32 + 1))
    }

    pub(crate) fn worker(&self, id: WorkerId) -> String {
        self.0.get(id.0 as usize - 1).cloned().unwrap_or_else(|| format!("{id:?}"))
    }
}

pub(crate) fn show_instruction(engine: &Engine, names: &Names, instruction: &Instruction) -> String {
    let worker = |id: &WorkerId| names.worker(*id);
    match instruction {
        Instruction::ComputeTask { worker: id, run_id } => {
            show_run(engine.compute_task(*run_id).expect("a run that was not given up"), &worker(id))
        }
        Instruction::FreeKeys { worker: id, keys } => format!("free {} on {}", join(keys), worker(id)),
        Instruction::AcquireReplicas { worker: id, replicas } => {
            let replicas: Vec<String> =
                replicas.iter().map(|(key, nbytes, holders)| format!("{key} {nbytes}B from {}", join(holders))).collect();
            format!("fetch {} on {}", replicas.join(", "), worker(id))
        }
        Instruction::RemoveReplicas { worker: id, keys } => format!("remove {} on {}", join(keys), worker(id)),
        Instruction::StealRequest { worker: id, key, run_id } => {
            format!("steal {key} run {} from {}", run_id.number(), worker(id))
        }
        Instruction::RefreshWhoHas { worker: id, who_has } => {
            let who_has: Vec<String> = who_has.iter().map(|(key, holders)| format!("{key} at [{}]", join(holders))).collect();
            format!("tell {} who has {}", worker(id), who_has.join(", "))
        }
        Instruction::RemoveWorker { worker: id, gone } => format!("tell {} that {gone} is gone", worker(id)),
        Instruction::KeyInMemory { client, key, type_pickle } => {
            format!("tell k{} {key} is in memory ({})", client.0, String::from_utf8_lossy(type_pickle))
        }
        Instruction::TaskErred { client, key, exception } => {
            format!("tell k{} {key} erred: {}", client.0, show_exception(exception))
        }
        Instruction::LostData { client, key } => format!("tell k{} {key} is lost", client.0),
        Instruction::CancelledKeys { client, keys, reason } => format!("tell k{} {} cancelled: {reason}", client.0, join(keys)),
        Instruction::TaskRetried { client, key } => format!("tell k{} {key} is retried", client.0),
        Instruction::ShuffleOver { barrier } => format!("shuffle of {barrier} is over"),
        Instruction::CollectionChanged { collection } => format!("changed c{}", collection.0),
        Instruction::CollectionReleased { collection } => format!("released c{}", collection.0),
    }
}

fn show_run(task: ComputeTask<'_>, worker: &str) -> String {
    let mut text =
        format!("compute {} on {worker} run {} priority {}", task.key(), task.run_id().number(), priority(task.priority()));
    for dependency in task.dependencies() {
        let holders: Vec<_> = dependency.holders().collect();
        text += &format!(" with {} {}B at {}", dependency.key(), dependency.nbytes(), join(&holders));
    }
    if !task.resources().is_empty() {
        text += &format!(" taking {}", task.resources());
    }
    if task.is_actor() {
        text += " as actor";
    }
    if let Some(executor) = task.executor() {
        text += &format!(" in {executor}");
    }
    text
}

fn show_exception(exception: &Exception) -> String {
    match exception {
        Exception::Raised { .. } => "raised".to_owned(),
        Exception::KilledWorker { last_worker, allowed_failures } => format!("killed {last_worker}, {allowed_failures} allowed"),
        Exception::ActorLost { worker } => format!("actor lost with {worker}"),
        Exception::Refused { message } | Exception::LostDependencies { message } => message.clone(),
    }
}

fn priority(priority: Priority) -> String {
    format!("({}, {}, {})", -priority.user + 0.0, priority.generation, priority.order)
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Each state with the keys in it.
pub(crate) fn show_states(engine: &Engine) -> Vec<String> {
    let mut lines: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for key in engine.keys() {
        lines.entry(engine.task_state(key).expect("a known key")).or_default().push(key.to_string());
    }
    let show = |(state, mut keys): (&str, Vec<String>)| {
        keys.sort();
        format!("{state}: {}", keys.join(" "))
    };
    lines.into_iter().map(show).collect()
}

pub(crate) fn show_story(engine: &Engine, names: &Names, key: &TaskKey) -> Vec<String> {
    let show = |entry: &mainstay::engine::StoryEntry| {
        let worker = entry.worker.map_or(String::new(), |worker| format!(" on {}", names.worker(worker)));
        format!("at {} {} → {}{worker} because of {}", entry.at.0, entry.from, entry.to, entry.because)
    };
    engine.story(key).iter().map(show).collect()
}

pub(crate) fn show_workers(engine: &Engine, names: &Names) -> Vec<String> {
    let show = |worker: mainstay::engine::WorkerView<'_>| {
        format!(
            "{} {:?} holds [{}] {}B, processes [{}] for {} ms, uses [{}]",
            names.worker(worker.id),
            worker.status,
            join(&engine.has_what(worker.id)),
            worker.nbytes,
            join(&engine.processing(worker.id)),
            worker.occupancy_ms,
            worker.used
        )
    };
    engine.workers().map(show).collect()
}

fn position(summary: &Summary) -> String {
    summary.position.map_or(String::new(), |position| format!(" position {position}"))
}

pub(crate) fn show_summary(engine: &Engine, collection: CollectionId) -> Vec<String> {
    let Some(summary) = engine.summary(collection) else { return vec!["no such collection".to_owned()] };
    let Summary { tasks, retries, user_priority, generation, nbytes, .. } = &summary;
    let mut lines = vec![
        format!(
            "tasks {} done {}: released {} waiting {} no-worker {} queued {} processing {} memory {} erred {}",
            tasks.total,
            tasks.done,
            tasks.released,
            tasks.waiting,
            tasks.no_worker,
            tasks.queued,
            tasks.processing,
            tasks.memory,
            tasks.erred
        ),
        format!(
            "retries {} of {} used, {} exhausted, {} repeated for lost workers, {} outputs lost",
            retries.used, retries.limit, retries.exhausted, retries.worker_lost, summary.losses
        ),
        format!("priority {user_priority} generation {generation}{}, {nbytes}B", position(&summary)),
        format!("workers {} of {} match", summary.workers_matching, summary.workers_running),
    ];
    if let Some(ReplicaSummary { wanted, least, short, workers }) = summary.replicas {
        lines.push(format!("replicas {least} of {wanted}, {short} keys are short, {workers} workers take copies"));
    }
    if !summary.workers_silent.is_empty() {
        lines.push(format!("nothing is heard of {}", summary.workers_silent.join(" ")));
    }
    for output in &summary.outputs {
        let (name, keys, in_memory, erred) = (&output.name, output.keys, output.in_memory, output.erred);
        lines.push(format!("output {name}: {in_memory} of {keys} in memory, {erred} erred, {}B", output.nbytes));
    }
    for share in &summary.workers {
        lines.push(format!("worker {} has {} tasks, {}B", share.name, share.tasks, share.nbytes));
    }
    if !retries.tasks.is_empty() {
        let runs = retries.tasks.iter().map(|(key, failures)| format!("{key} {failures}")).collect::<Vec<_>>();
        lines.push(format!("failed runs: {}", runs.join(", ")));
    }
    for failure in &summary.failures {
        let (key, text, attempts, worker) = (&failure.key, &failure.exception_text, failure.attempts, &failure.worker);
        lines.push(format!("failed {key} after {attempts} attempts on [{worker}]: {text}"));
    }
    for unmatched in &summary.unmatched_overrides {
        lines.push(format!("override {} matches nothing, closest is {:?}", unmatched.keys, unmatched.closest));
    }
    if let Some(unrunnable) = &summary.unrunnable {
        let nearest = unrunnable.nearest.as_ref();
        let nearest =
            nearest.map_or("none".to_owned(), |(resource, worker, amount)| format!("{worker} with {resource}: {amount}"));
        lines.push(format!(
            "unrunnable {} such as {}: needs [{}], nearest {nearest}, selected {} of {}",
            unrunnable.tasks, unrunnable.example, unrunnable.resources, unrunnable.workers_selected, unrunnable.workers_running
        ));
    }
    lines
}
