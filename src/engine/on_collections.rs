//! Collections are built, changed and removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::dask::TaskKey;
use crate::engine::arrival::Wishes;
use crate::engine::collection::{Collection, Output};
use crate::engine::intake::Intake;
use crate::engine::overrides::{Matches, closest};
use crate::engine::owner::Owner;
use crate::engine::task::Blame;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::{Annotations, CollectionId, Engine, Exception, Graph, Instruction, Past, Requirements, UnmatchedOverride};

impl Engine {
    pub(super) fn on_collection_applied(&mut self, id: CollectionId, fifo_timeout_ms: u64, generation: Option<u64>) {
        let place = match generation {
            Some(generation) => self.generations.keep_place(generation),
            None => self.generations.take_place(self.now, fifo_timeout_ms),
        };
        self.places.insert(id, place);
    }

    /// Takes in a revision, and then lets go of what only the one before wanted: what both have stays where it is.
    pub(super) fn on_collection_built(
        &mut self,
        id: CollectionId,
        mut graph: Graph,
        outputs: Vec<(String, Vec<TaskKey>)>,
        requirements: Requirements,
        past: &Past,
    ) {
        let owner = Owner::Collection(id);
        self.complete_arrivals_of(owner);
        self.forget_all();
        self.changed.insert(id);
        if !self.places.contains_key(&id) {
            self.on_collection_applied(id, requirements.fifo_timeout_ms, None);
        }
        let generation = self.generations.number(self.places[&id]);
        let is_first = !self.collections.contains_key(&id);
        let collection = self.collections.entry(id).or_insert_with(|| Box::new(Collection::new(requirements.clone())));
        collection.requirements = requirements.clone();
        collection.generation = generation;
        let old_members = collection.members.clone();
        let old_outputs = std::mem::take(&mut collection.outputs);
        self.replicas_changed(id);

        let names = std::mem::take(&mut graph.names);
        let is_plain = is_first && requirements.overrides.is_empty() && *past == Past::default() && names.is_empty();
        let mut intake = Intake::new(owner, requirements, generation as f64, graph);
        self.complete_arrivals_before(&intake);
        if is_plain && self.is_large(&intake) {
            let outputs = outputs.into_iter().map(|(name, keys)| (name, keys.into_iter())).collect();
            return self.arrive(intake, Wishes::OfCollection { collection: id, outputs }, true);
        }
        let taken_in = self.take_in_tasks(&mut intake, usize::MAX);
        let requirements = intake.requirements;
        let mut members = TaskSet::default();
        for task in taken_in {
            self.join_collection(task.id, id);
            members.insert(task.id);
            if (task.annotations.is_some() || !is_first)
                && let Some(collection) = self.collections.get_mut(&id)
            {
                collection.annotate(task.id, task.annotations);
            }
        }
        if is_first {
            self.recall_past(id, past);
        }
        let outputs = self.want_outputs(id, outputs, &mut members);
        let wanted: TaskSet = outputs.iter().flat_map(|output| output.keys.iter().copied()).collect();
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.outputs = outputs;
            collection.names = names.into_iter().filter_map(|(key, name)| Some((self.tasks.id(&key)?, name))).collect();
        }
        for old in old_outputs.iter().flat_map(|output| &output.keys) {
            if !wanted.contains(*old) {
                self.unwant(*old, owner);
            }
        }
        let heirs: BTreeSet<CollectionId> =
            old_members.difference(&members).iter().filter_map(|old| self.drop_member(old, id)).collect();
        let mut has_orphans = false;
        for member in members.iter() {
            if self.is_orphan(member) {
                has_orphans = true;
                self.tasks[member].origin = owner;
            }
        }
        for heir in heirs {
            self.apply_requirements(heir);
        }
        // New tasks have them already, but for overrides.
        if !is_first || has_orphans || !requirements.overrides.is_empty() {
            self.apply_requirements(id);
        }
        self.replicas_changed(id);
        // Whoever edits a collection wants to see it tried again.
        for member in members.intersection(&old_members).iter() {
            self.retry_afresh(member);
        }
    }

    /// Counts on from what was counted before.
    fn recall_past(&mut self, id: CollectionId, past: &Past) {
        for (key, failures) in past.failures.iter().filter(|(_, failures)| *failures > 0) {
            let Some(task_id) = self.tasks.id(key).filter(|task| self.tasks[*task].member_of.contains(&id)) else { continue };
            let task = &mut self.tasks[task_id];
            task.failures = task.failures.max(*failures);
            self.count_in_collections(task_id, |collection| _ = collection.retried.insert(task_id));
        }
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.retries_used += past.retries_used;
            collection.worker_lost += past.worker_lost;
        }
    }

    fn want_outputs(&mut self, id: CollectionId, outputs: Vec<(String, Vec<TaskKey>)>, members: &mut TaskSet) -> Vec<Output> {
        let mut wanted = Vec::with_capacity(outputs.len());
        for (name, keys) in outputs {
            let keys: Vec<TaskId> = keys.iter().map(|key| self.want_output(id, &name, key)).collect();
            members.extend(&keys);
            wanted.push(Output { name, keys });
        }
        wanted
    }

    /// Wants one key of an output.
    pub(super) fn want_output(&mut self, id: CollectionId, output: &str, key: &TaskKey) -> TaskId {
        let owner = Owner::Collection(id);
        let task = self.tasks.id(key).unwrap_or_else(|| {
            let message = self.why_no_output(output, key);
            self.record_refused(key, owner, message)
        });
        self.join_collection(task, id);
        self.want(task, owner);
        task
    }

    fn why_no_output(&self, name: &str, key: &TaskKey) -> String {
        if self.has_room() {
            format!("output `{name}` is made of `{key}`, which is not in the graph")
        } else {
            self.why_no_room()
        }
    }

    pub(super) fn on_collection_changed(&mut self, id: CollectionId, requirements: Requirements) {
        self.complete_arrivals_of(Owner::Collection(id));
        let Some(collection) = self.collections.get_mut(&id) else { return self.ignore() };
        let before = std::mem::replace(&mut collection.requirements, requirements.clone());
        self.changed.insert(id);
        self.apply_requirements(id);
        self.replicas_changed(id);
        let (retries, fifo_timeout_ms, replicas) = (before.retries, before.fifo_timeout_ms, before.replicas);
        if before != (Requirements { retries, fifo_timeout_ms, replicas, ..requirements }) {
            // What came of the rest of its graph comes first, so that no worker is told of what nobody needs.
            self.settle();
            self.recall(id);
        }
    }

    pub(super) fn on_collection_removed(&mut self, id: CollectionId) {
        self.complete_arrivals_of(Owner::Collection(id));
        self.places.remove(&id);
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
        let heirs: BTreeSet<CollectionId> = members.iter().filter_map(|member| self.drop_member(member, id)).collect();
        if let Some(standing) = self.collections.remove(&id).and_then(|collection| collection.standing) {
            self.standings.remove(&(standing, id));
            self.changed.extend(self.standings.iter().map(|(_, other)| *other));
        }
        self.replicas_changed(id);
        for heir in heirs {
            self.apply_requirements(heir);
        }
        self.settle();
        self.send_frees();
        self.changed.remove(&id);
        self.out.push(Instruction::CollectionReleased { collection: id });
    }

    /// Takes a task out of a collection. If the collection said how it runs, another that has the task does so from here
    /// on, and is returned.
    fn drop_member(&mut self, task: TaskId, id: CollectionId) -> Option<CollectionId> {
        self.leave_collection(task, id);
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.annotate(task, None);
        }
        let heir = self.tasks[task].member_of.first().copied().filter(|_| self.tasks[task].origin == Owner::Collection(id))?;
        self.tasks[task].origin = Owner::Collection(heir);
        Some(heir)
    }

    /// Whether no collection says under which conditions a task runs. What a Client said of it lasts until one does: the
    /// Client may go, or may have restricted it to workers that are gone.
    fn is_orphan(&self, task: TaskId) -> bool {
        let task = &self.tasks[task];
        match task.origin {
            Owner::Collection(id) => !task.member_of.contains(&id),
            Owner::Client(_) => true,
        }
    }

    /// Has the collection's requirements apply to a member if no collection says under which conditions it runs.
    pub(super) fn adopt_orphan(
        &mut self,
        task: TaskId,
        id: CollectionId,
        requirements: &Requirements,
        own: Option<&Annotations>,
    ) {
        if self.is_orphan(task) {
            self.tasks[task].origin = Owner::Collection(id);
            self.set_requirements(task, requirements, own);
            if self.has_retries_again(task) {
                self.retry(task);
            }
        }
    }

    /// Has the collection's requirements and overrides apply to the tasks that it brought: at once to those that are not
    /// running yet, otherwise from the next run.
    fn apply_requirements(&mut self, id: CollectionId) {
        let matches = self.match_overrides(id);
        let Some(collection) = self.collections.get(&id) else { return };
        let requirements = collection.requirements.clone();
        for (position, task_id) in collection.members.clone().iter().enumerate() {
            if self.tasks[task_id].origin != Owner::Collection(id) {
                continue;
            }
            let own = self.collections[&id].annotated.get(&task_id).cloned();
            let own = match matches.get(position) {
                None | Some(0) => own,
                Some(matches) => Some(Arc::new(requirements.overrides.apply(own.as_deref(), *matches))),
            };
            self.set_requirements(task_id, &requirements, own.as_deref());
            if self.has_retries_again(task_id) {
                self.retry(task_id);
            }
        }
    }

    /// Which overrides match each member, in the members' order; nothing when there are no overrides. Notes those that
    /// match none.
    fn match_overrides(&mut self, id: CollectionId) -> Vec<Matches> {
        let Some(collection) = self.collections.get_mut(&id) else { return Vec::new() };
        collection.unmatched_overrides.clear();
        let Some(mut matcher) = collection.requirements.overrides.matcher() else { return Vec::new() };
        let of_task = |task: TaskId| {
            let name = collection.names.get(&task).map(|name| &**name);
            matcher.matches(&self.tasks[task].key, name)
        };
        let matches: Vec<Matches> = collection.members.iter().map(of_task).collect();
        let any = matches.iter().fold(0, |any, matches| any | matches);
        let overrides = collection.requirements.overrides.as_slice().iter().enumerate();
        let unmatched: Vec<&str> =
            overrides.filter(|(index, _)| any >> index & 1 == 0).map(|(_, unmatched)| unmatched.keys.as_str()).collect();
        if !unmatched.is_empty() {
            let given = collection.members.iter().map(|task| match collection.names.get(&task) {
                Some(name) => name.to_string(),
                None => self.tasks[task].key.prefix().into_owned(),
            });
            let names: BTreeSet<String> = given.collect();
            let note = |keys: &str| UnmatchedOverride {
                keys: keys.to_owned(),
                closest: closest(keys, names.iter().map(String::as_str)).map(str::to_owned),
            };
            let unmatched = unmatched.into_iter().map(note).collect();
            collection.unmatched_overrides = unmatched;
        }
        matches
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
