//! Finds a cycle in what was asked for.

use rustc_hash::FxHashMap;

use crate::engine::task_table::{TaskId, TaskTable};

/// Longer cycles are shown with their middle left out.
const SHOWN_MAX: usize = 8;

/// A cycle that can be reached from `starts` by following dependencies: each task depends on the next, the last on the
/// first. Only tasks that `may_lead_back` are looked into.
///
/// Without recursion: graphs are as deep as their authors like.
pub(super) fn find_cycle(tasks: &TaskTable, starts: &[TaskId], may_lead_back: impl Fn(TaskId) -> bool) -> Option<Vec<TaskId>> {
    /// Whether a task is on the path from the start, or known to lead to no cycle.
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        OnPath,
        Clear,
    }
    let mut marks: FxHashMap<TaskId, Mark> = FxHashMap::default();
    // The path, with how many dependencies of each task were followed.
    let mut path: Vec<(TaskId, usize)> = Vec::new();
    for start in starts {
        if marks.contains_key(start) {
            continue;
        }
        path.push((*start, 0));
        marks.insert(*start, Mark::OnPath);
        while let Some((id, followed)) = path.last_mut() {
            let Some(next) = tasks[*id].dependencies.get(*followed).copied() else {
                marks.insert(*id, Mark::Clear);
                path.pop();
                continue;
            };
            *followed += 1;
            match marks.get(&next) {
                Some(Mark::Clear) => {}
                Some(Mark::OnPath) => {
                    let from = path.iter().position(|(id, _)| *id == next).unwrap_or_default();
                    return Some(path[from..].iter().map(|(id, _)| *id).collect());
                }
                None if !may_lead_back(next) => {}
                None => {
                    marks.insert(next, Mark::OnPath);
                    path.push((next, 0));
                }
            }
        }
    }
    None
}

/// The cycle in words: `a → b → a`.
pub(super) fn describe(tasks: &TaskTable, cycle: &[TaskId]) -> String {
    let mut names: Vec<String> = cycle.iter().map(|id| tasks[*id].key.to_string()).collect();
    if names.len() > SHOWN_MAX {
        let left_out = names.len() - SHOWN_MAX;
        names.splice(SHOWN_MAX / 2..SHOWN_MAX / 2 + left_out, [format!("… {left_out} more …")]);
    }
    names.push(names[0].clone());
    names.join(" → ")
}
