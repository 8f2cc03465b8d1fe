//! The graph of tasks that are written out: keys, references, circles.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Error, Problem, arguments, name, validate_priority, validate_resources, validate_retries, validate_workers};
use crate::api;
use crate::api::limits::{COLLECTIONS_MAX, TASK_KEY_LENGTH_MAX, TASKS_MAX};
use crate::engine::WorkerSelector;
use crate::server::InlineTask;

const FIELD: &str = "spec.source.tasks";
/// Most keys of a circle that a message shows.
const CIRCLE_SHOWN_MAX: usize = 20;
/// How like a name a key must be to be suggested; 1 is equal.
const LIKENESS_MIN: f64 = 0.6;

/// Checks the tasks one by one and as a graph.
pub(super) fn validate(tasks: &[api::InlineTask], inputs: &BTreeMap<String, api::Input>) -> Result<Vec<InlineTask>, Error> {
    if tasks.is_empty() {
        return Err(Error::new(FIELD, Problem::Empty));
    }
    if tasks.len() > TASKS_MAX {
        return Err(Error::new(FIELD, Problem::TooMany { found: tasks.len(), max: TASKS_MAX }));
    }
    let validated = tasks.iter().enumerate().map(validate_task).collect::<Result<Vec<_>, _>>()?;
    let mut index_of = BTreeMap::new();
    for (index, task) in validated.iter().enumerate() {
        if index_of.insert(task.key.as_str(), index).is_some() {
            return Err(Error::new(format!("{FIELD}[{index}].key"), Problem::Duplicate { found: task.key.clone() }));
        }
    }
    let mut dependencies = Vec::with_capacity(validated.len());
    for (index, task) in validated.iter().enumerate() {
        if let Some(unknown) = references(task, "input").into_iter().find(|name| !inputs.contains_key(*name)) {
            return Err(Error::new(format!("{FIELD}[{index}]"), Problem::UnknownInput { found: unknown.to_owned() }));
        }
        let needed = references(task, "task")
            .into_iter()
            .map(|key| index_of.get(key).copied().ok_or_else(|| unknown_reference(index, key, &validated)));
        dependencies.push(needed.collect::<Result<Vec<usize>, _>>()?);
    }
    if let Some(circle) = find_circle(&dependencies) {
        return Err(Error::new(FIELD, Problem::Cycle { circle: show_circle(&validated, &circle) }));
    }
    Ok(validated)
}

/// The keys that no other task takes, in the order of the list.
///
/// # Errors
/// When these are too many for one object.
pub(super) fn sinks(tasks: &[InlineTask]) -> Result<Vec<String>, Error> {
    let taken: BTreeSet<&str> = tasks.iter().flat_map(|task| references(task, "task")).collect();
    let sinks: Vec<String> =
        tasks.iter().filter(|task| !taken.contains(task.key.as_str())).map(|task| task.key.clone()).collect();
    if sinks.len() > COLLECTIONS_MAX {
        return Err(Error::new(FIELD, Problem::TooManySinks { found: sinks.len() }));
    }
    Ok(sinks)
}

fn validate_task((index, task): (usize, &api::InlineTask)) -> Result<InlineTask, Error> {
    let api::InlineTask { key, call, args, kwargs, retries, priority, workers, allow_other_workers, resources, actor } = task;
    let field = format!("{FIELD}[{index}]");
    name::length(&format!("{field}.key"), key, TASK_KEY_LENGTH_MAX)?;
    if key.trim() != key || key.chars().any(char::is_control) {
        return Err(Error::new(format!("{field}.key"), Problem::BadKey));
    }
    name::callable(&format!("{field}.call"), call)?;
    arguments(&field, args, kwargs)?;
    let retries = retries.map(|retries| validate_retries(&format!("{field}.retries"), retries)).transpose()?;
    let priority = priority.map(|priority| validate_priority(&format!("{field}.priority"), priority)).transpose()?;
    let workers = workers.as_ref().map(|workers| validate_workers(&format!("{field}.workers"), workers)).transpose()?;
    if let Some(resources) = resources {
        validate_resources(&format!("{field}.resources"), resources)?;
    }
    Ok(InlineTask {
        key: key.clone(),
        call: call.clone(),
        args: args.clone(),
        kwargs: kwargs.clone(),
        retries,
        priority,
        resources: resources.clone(),
        workers,
        allow_other_workers: *allow_other_workers,
        actor: actor.unwrap_or(false),
    })
}

/// A name where the key of a task should be.
pub(super) fn unknown(field: &str, name: &str, tasks: &[InlineTask]) -> Error {
    Error::new(field, Problem::UnknownTask { found: name.to_owned(), closest: closest(name, tasks) })
}

fn unknown_reference(index: usize, key: &str, tasks: &[InlineTask]) -> Error {
    let problem = Problem::UnknownReference { found: key.to_owned(), closest: closest(key, tasks) };
    Error::new(format!("{FIELD}[{index}]"), problem)
}

/// The key that was perhaps meant.
fn closest(name: &str, tasks: &[InlineTask]) -> Option<Box<str>> {
    let likeness = |task: &InlineTask| strsim::normalized_damerau_levenshtein(name, &task.key);
    let near = tasks.iter().map(|task| (likeness(task), task)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    near.max_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, task)| task.key.as_str().into())
}

/// With no workers named anywhere else, tasks that prefer some have to say which.
pub(super) fn prefer_something(tasks: &[InlineTask]) -> Result<(), Error> {
    let is_empty = |task: &InlineTask| task.workers.as_ref().is_none_or(|selector| *selector == WorkerSelector::default());
    match tasks.iter().position(|task| task.allow_other_workers == Some(true) && is_empty(task)) {
        Some(index) => Err(Error::new(format!("{FIELD}[{index}].allowOtherWorkers"), Problem::NothingToPrefer)),
        None => Ok(()),
    }
}

/// What a task refers to as `{"task": key}`, or `{"input": name}`, anywhere in its arguments.
fn references<'a>(task: &'a InlineTask, kind: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for value in task.args.iter().chain(task.kwargs.values()) {
        collect_references(value, kind, &mut found);
    }
    found
}

fn collect_references<'a>(value: &'a Value, kind: &str, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => match fields.get(kind) {
            Some(Value::String(name)) if fields.len() == 1 => {
                found.insert(name);
            }
            _ => fields.values().for_each(|inner| collect_references(inner, kind, found)),
        },
        Value::Array(items) => items.iter().for_each(|inner| collect_references(inner, kind, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The tasks of one circle, each needing the next and the last the first.
fn find_circle(dependencies: &[Vec<usize>]) -> Option<Vec<usize>> {
    const UNSEEN: u8 = 0;
    const ON_PATH: u8 = 1;
    const DONE: u8 = 2;
    let mut state = vec![UNSEEN; dependencies.len()];
    for start in 0..dependencies.len() {
        if state[start] != UNSEEN {
            continue;
        }
        // The path from `start`, with how many dependencies of each task were followed. No recursion: a chain may be long.
        let mut path = vec![(start, 0)];
        state[start] = ON_PATH;
        while let Some((task, followed)) = path.last_mut() {
            let Some(&next) = dependencies[*task].get(*followed) else {
                state[*task] = DONE;
                path.pop();
                continue;
            };
            *followed += 1;
            match state[next] {
                UNSEEN => {
                    state[next] = ON_PATH;
                    path.push((next, 0));
                }
                ON_PATH => {
                    return Some(path.iter().map(|(task, _)| *task).skip_while(|&task| task != next).collect());
                }
                _ => {}
            }
        }
    }
    None
}

fn show_circle(tasks: &[InlineTask], circle: &[usize]) -> String {
    let mut shown: Vec<&str> = circle.iter().take(CIRCLE_SHOWN_MAX).map(|&index| tasks[index].key.as_str()).collect();
    if circle.len() > CIRCLE_SHOWN_MAX {
        shown.push("…");
    }
    shown.push(&tasks[circle[0]].key);
    shown.join(" → ")
}
