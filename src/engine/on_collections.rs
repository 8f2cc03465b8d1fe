//! Collections are built, changed and removed.

use std::collections::BTreeSet;

use crate::dask::{Priority, TaskKey};
use crate::engine::collection::{Collection, Output};
use crate::engine::intake::{Intake, user_priority};
use crate::engine::owner::Owner;
use crate::engine::task::Blame;
use crate::engine::task_table::TaskId;
use crate::engine::{CollectionId, Engine, Exception, Graph, Instruction, Requirements};

impl Engine {
    /// Takes in a revision, and then lets go of what only the one before wanted: what both have stays where it is.
    pub(super) fn on_collection_built(
        &mut self,
        id: CollectionId,
        graph: Graph,
        outputs: Vec<(String, Vec<TaskKey>)>,
        requirements: Requirements,
    ) {
        self.changed.insert(id);
        let owner = Owner::Collection(id);
        let generation = self.generations.of_graph(self.now, requirements.fifo_timeout_ms);
        let collection = self.collections.entry(id).or_insert_with(|| Collection::new(requirements.clone()));
        collection.requirements = requirements.clone();
        collection.generation = generation;
        let old_members = collection.members.clone();
        let old_outputs = std::mem::take(&mut collection.outputs);

        let taken_in = self.take_in_graph(graph, &Intake { owner, requirements: &requirements, generation: generation as f64 });
        let mut members = BTreeSet::new();
        for task in taken_in {
            self.join_collection(task.id, id);
            members.insert(task.id);
            if let Some(collection) = self.collections.get_mut(&id) {
                collection.annotate(task.id, task.annotations);
            }
        }
        let outputs = self.want_outputs(id, outputs, &mut members);
        let wanted: BTreeSet<TaskId> = outputs.iter().flat_map(|output| output.keys.iter().copied()).collect();
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.outputs = outputs;
        }
        for old in old_outputs.iter().flat_map(|output| &output.keys) {
            if !wanted.contains(old) {
                self.unwant(*old, owner);
            }
        }
        for old in old_members.difference(&members) {
            self.drop_member(*old, id);
        }
        self.apply_requirements(id);
        // Whoever edits a collection wants to see it tried again.
        for member in members.intersection(&old_members) {
            self.retry_afresh(*member);
        }
    }

    fn want_outputs(
        &mut self,
        id: CollectionId,
        outputs: Vec<(String, Vec<TaskKey>)>,
        members: &mut BTreeSet<TaskId>,
    ) -> Vec<Output> {
        let owner = Owner::Collection(id);
        let mut wanted = Vec::with_capacity(outputs.len());
        for (name, keys) in outputs {
            let mut ids = Vec::with_capacity(keys.len());
            for key in keys {
                let task = self.tasks.id(&key).unwrap_or_else(|| {
                    let message = self.why_no_output(&name, &key);
                    self.record_refused(&key, owner, message)
                });
                self.join_collection(task, id);
                members.insert(task);
                self.want(task, owner);
                ids.push(task);
            }
            wanted.push(Output { name, keys: ids });
        }
        wanted
    }

    fn why_no_output(&self, name: &str, key: &TaskKey) -> String {
        if self.has_room() {
            format!("output `{name}` is made of `{key}`, which is not in the graph")
        } else {
            self.why_no_room()
        }
    }

    pub(super) fn on_collection_changed(&mut self, id: CollectionId, requirements: Requirements) {
        let Some(collection) = self.collections.get_mut(&id) else { return self.ignore() };
        collection.requirements = requirements;
        self.changed.insert(id);
        self.apply_requirements(id);
    }

    pub(super) fn on_collection_removed(&mut self, id: CollectionId) {
        let Some(collection) = self.collections.get_mut(&id) else {
            // Nothing was ever held, which is what the asker waits for.
            self.out.push(Instruction::CollectionReleased { collection: id });
            return;
        };
        let members = collection.members.clone();
        for output in std::mem::take(&mut collection.outputs) {
            for key in output.keys {
                self.unwant(key, Owner::Collection(id));
            }
        }
        for member in members {
            self.drop_member(member, id);
        }
        self.collections.remove(&id);
        self.settle();
        self.send_frees();
        self.changed.remove(&id);
        self.out.push(Instruction::CollectionReleased { collection: id });
    }

    fn drop_member(&mut self, task: TaskId, id: CollectionId) {
        self.leave_collection(task, id);
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.annotate(task, None);
        }
    }

    /// Has the collection's requirements apply to the tasks that it brought: at once to those that are not running yet,
    /// otherwise from the next run.
    fn apply_requirements(&mut self, id: CollectionId) {
        let Some(collection) = self.collections.get(&id) else { return };
        let requirements = collection.requirements.clone();
        for task_id in collection.members.clone() {
            if self.tasks[task_id].origin != Owner::Collection(id) {
                continue;
            }
            let own = self.collections[&id].annotated.get(&task_id).cloned();
            let task = &mut self.tasks[task_id];
            task.retries = own.as_ref().and_then(|own| own.retries).unwrap_or(requirements.retries);
            let priority = Priority { user: user_priority(&requirements, own.as_deref()), ..task.priority };
            let (actor, isolated) = (task.actor, task.is_suspect());
            let requirement = self.requirement_of(&requirements, own.as_deref(), actor, isolated);
            self.set_conditions(task_id, priority, requirement);
            if self.has_retries_again(task_id) {
                self.retry(task_id);
            }
        }
    }

    /// Whether a task failed for want of retries that it has now.
    fn has_retries_again(&self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        match task.blame() {
            Some(Blame::Own(fault)) => {
                matches!(fault.failure.exception, Exception::Raised { .. }) && task.failures <= task.retries
            }
            Some(Blame::Dependency(_)) | None => false,
        }
    }
}
