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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::TaskKey;
    use crate::engine::ClientId;
    use crate::engine::owner::Owner;
    use crate::engine::prefix::PrefixTable;
    use crate::engine::requirement_table::{Requirement, RequirementTable};
    use crate::engine::task::Task;
    use crate::engine::worker::Workers;

    /// Tasks `t0`, `t1`, …, each with the dependencies that are named for it.
    fn tasks(dependencies: impl ExactSizeIterator<Item = Vec<usize>>) -> (TaskTable, Vec<TaskId>) {
        let mut table = TaskTable::default();
        let requirement = RequirementTable::default().acquire(&Requirement::default(), &Workers::default());
        let ids: Vec<TaskId> = (0..dependencies.len())
            .map(|index| {
                let key = TaskKey::from_text(&format!("t{index}"));
                let prefix = PrefixTable::default().intern(&key);
                table.id_or_insert(&key, || Task::new(key.clone(), Owner::Client(ClientId(0)), requirement, prefix)).0
            })
            .collect();
        for (index, dependencies) in dependencies.enumerate() {
            table[ids[index]].dependencies = dependencies.into_iter().map(|dependency| ids[dependency]).collect();
        }
        (table, ids)
    }

    #[test]
    fn a_cycle_is_found_behind_a_diamond_and_named_from_its_first_task() {
        let (table, ids) = tasks([vec![1, 2], vec![3], vec![3], vec![4], vec![5], vec![3]].into_iter());
        let cycle = find_cycle(&table, &ids, |_| true).unwrap();
        assert_eq!(describe(&table, &cycle), "t3 → t4 → t5 → t3");
        assert_eq!(find_cycle(&table, &ids[..3], |id| id != ids[3]), None);
    }

    #[test]
    fn a_graph_of_any_depth_is_searched_and_a_long_cycle_is_cut() {
        let depth = 20_000;
        let chain =
            |last: Vec<usize>| (0..depth).map(move |index| if index + 1 < depth { vec![index + 1] } else { last.clone() });
        let (table, ids) = tasks(chain(vec![]));
        assert_eq!(find_cycle(&table, &ids, |_| true), None);
        let (table, ids) = tasks(chain(vec![0]));
        let cycle = find_cycle(&table, &ids, |_| true).unwrap();
        assert_eq!(cycle.len(), depth);
        let text = describe(&table, &cycle);
        assert_eq!(text, "t0 → t1 → t2 → t3 → … 19992 more … → t19996 → t19997 → t19998 → t19999 → t0");
    }
}
