//! What is always true between stimuli. Checked after each in tests and debug builds; a breach is a bug of ours.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::arrival::Arrival;
use crate::engine::collection::{Collection, Share};
use crate::engine::owner::Owner;
use crate::engine::requirement_table::RequirementId;
use crate::engine::rules::Step;
use crate::engine::task::{StateName, Task, TaskState};
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::user_priorities::UserPriorities;
use crate::engine::{Engine, Requirements, Resources, WorkerId};

/// Up to this many tasks every stimulus is checked: a check looks at all of them.
const CHECKED_ALWAYS_MAX: usize = 300;
/// With more tasks, one stimulus in so many is.
const CHECKED_EVERY: u64 = 1_000;

impl Engine {
    pub(super) fn invariants_are_due(&self) -> bool {
        self.tasks.len() <= CHECKED_ALWAYS_MAX || self.stats.stimuli.is_multiple_of(CHECKED_EVERY)
    }

    /// # Panics
    /// When something is not as it must be.
    pub fn check_invariants(&self) {
        assert!(self.unsettled.is_empty() && self.frees.is_empty() && self.given_up.is_empty() && self.changed.is_empty());
        let unforgotten: TaskSet = self.unforgotten.iter().copied().collect();
        for (id, task) in self.tasks.iter() {
            self.check_task(id, task, &unforgotten);
        }
        assert!(self.brought.workers().all(|worker| self.workers.contains_key(&worker)), "what was brought is somewhere");
        self.check_edges();
        self.check_workers();
        self.check_requirements();
        self.check_collections();
        self.check_clients();
        for (key, id) in self.arrivals.iter().flat_map(Arrival::taken_in) {
            assert_eq!(self.tasks.id(key), Some(id), "nobody lets go of {key} before all of its graph is there");
        }
    }

    /// No task is limbo, and what it counts of its neighbours is so.
    fn check_task(&self, id: TaskId, task: &Task, unforgotten: &TaskSet) {
        let story = || format!("{} {:?}\n{:#?}", task.key, task.state(), self.story(&task.key));
        assert_eq!(self.tasks.id(&task.key), Some(id), "the key leads to the task: {}", story());
        let step = self.next_step(id).filter(|step| *step != Step::Forget || !unforgotten.contains(id));
        assert_eq!(step, None, "no step is left: {}", story());
        let dependencies = || task.dependencies.iter().map(|dependency| &self.tasks[*dependency]);
        let dependents = || task.dependents.iter().map(|dependent| &self.tasks[dependent]);
        let missing = dependencies().filter(|dependency| !dependency.is_within_reach()).count();
        assert_eq!(task.missing as usize, missing, "missing: {}", story());
        let failed = dependencies().filter(|dependency| dependency.blame().is_some()).count();
        assert_eq!(task.failed as usize, failed, "failed: {}", story());
        let waiters = dependents().filter(|dependent| dependent.state_name().is_live()).count();
        assert_eq!(task.waiters as usize, waiters, "waiters: {}", story());
        let in_queue = self.requirements.ready(task.requirement).contains(task.priority, id);
        assert_eq!(in_queue, task.state_name().is_ready(), "all and only ready tasks are in a queue: {}", story());
        if let TaskState::Memory(replicas) = task.state() {
            let holders: BTreeSet<WorkerId> = replicas.holders.iter().copied().collect();
            assert!(!holders.is_empty() && holders.len() == replicas.holders.len(), "holders: {}", story());
            assert!(holders.iter().all(|holder| self.workers[holder].holds.contains(id)), "has_what: {}", story());
            assert_eq!(replicas.out_of_reach, holders.iter().all(|holder| self.workers[holder].is_silent()), "{}", story());
        }
        if let TaskState::Processing(run) = task.state() {
            assert!(self.workers[&run.worker].processing.contains(&id), "it is on its worker: {}", story());
        }
    }

    /// Each edge is known at both ends, once.
    fn check_edges(&self) {
        let down = |(id, task): (TaskId, &Task)| task.dependencies.iter().map(move |other| (*other, id)).collect::<Vec<_>>();
        let up = |(id, task): (TaskId, &Task)| task.dependents.iter().map(move |other| (id, other)).collect::<Vec<_>>();
        let mut downwards: Vec<(TaskId, TaskId)> = self.tasks.iter().flat_map(down).collect();
        let mut upwards: Vec<(TaskId, TaskId)> = self.tasks.iter().flat_map(up).collect();
        downwards.sort_unstable();
        upwards.sort_unstable();
        assert_eq!(downwards, upwards, "edges go both ways");
        assert!(downwards.is_sorted_by(|one, next| one < next), "edges are drawn once");
    }

    /// What workers count is what tasks say, and nobody is over-committed.
    fn check_workers(&self) {
        let (mut open, mut free_threads, mut backlogged) = (BTreeSet::new(), 0, BTreeSet::new());
        for (id, worker) in &self.workers {
            let held = || worker.holds.iter().map(|task| &self.tasks[task]);
            let runs = || worker.processing.iter().filter_map(|task| self.tasks[*task].run());
            let requirements = || runs().map(|run| self.requirements.get(run.requirement));
            assert!(held().all(|task| task.holders().contains(id)), "who_has of {id:?}");
            assert!(runs().all(|run| run.worker == *id) && runs().count() == worker.processing.len(), "processing of {id:?}");
            assert_eq!(worker.nbytes, held().filter_map(|task| task.replicas()).map(|replicas| replicas.nbytes).sum::<u64>());
            assert_eq!(worker.occupancy_us, runs().map(|run| run.expected_us).sum::<u64>());
            assert_eq!(worker.seceded as usize, runs().filter(|run| run.seceded).count());
            let mut under_way = UserPriorities::default();
            let with_thread = |task: &&TaskId| self.tasks[**task].run().is_some_and(|run| !run.seceded);
            worker.processing.iter().filter(with_thread).for_each(|task| under_way.add(self.tasks[*task].priority.user));
            assert_eq!(worker.under_way, under_way, "priorities of what {id:?} has");
            assert_eq!(worker.isolated as usize, requirements().filter(|requirement| requirement.isolated).count());
            assert!(worker.isolated <= 1, "suspects are kept apart on {id:?}");
            let actors = held().filter(|task| task.actor).count() + requirements().filter(|one| one.actor).count();
            assert_eq!(worker.actors as usize, actors);

            let lingering = worker.lingering.iter().map(|lingering| &lingering.resources);
            let used = sum_resources(requirements().map(|requirement| &requirement.resources).chain(lingering));
            assert_eq!(worker.used, used, "resources of {id:?}");
            let blocked = worker.lingering.iter().filter(|lingering| lingering.has_thread).count();
            assert_eq!(worker.blocked as usize, blocked, "threads of {id:?} that runs have which were given up");
            assert!(worker.is_being_fed || !worker.runs_low(), "who runs low is fed: {id:?}");
            assert!(
                (worker.unsent.is_empty() && worker.unsent_frees.is_empty()) || !worker.is_being_fed,
                "who is fed was told of all: {id:?}"
            );
            assert!(worker.copying.keys().all(|task| self.tasks[*task].replicas().is_some()), "copies that {id:?} fetches");
            if worker.is_open() {
                open.insert(worker.rank(*id, self.tie_break(*id)));
                free_threads += worker.free_threads();
            }
            if worker.has_backlog() {
                backlogged.insert(*id);
            }
        }
        assert_eq!(
            (&self.open, self.free_threads),
            (&open, free_threads),
            "all and only workers that can be given more are open"
        );
        let silent = self.workers.iter().filter(|(_, worker)| worker.is_silent()).map(|(id, _)| *id);
        assert_eq!(self.silent, silent.collect(), "silent workers");
        let mut under_way = UserPriorities::default();
        let processing = self.tasks.iter().filter(|(_, task)| task.run().is_some());
        processing.for_each(|(_, task)| under_way.add(task.priority.user));
        assert_eq!(self.under_way, under_way, "priorities of what is under way");
        assert_eq!(self.backlogged, backlogged, "workers with a backlog");
        let is_replicated =
            |(_, task): &(TaskId, &Task)| task.holders().len() > self.copies_wanted(task) && task.run_spec.is_some();
        assert_eq!(self.replicated, self.tasks.iter().filter(is_replicated).map(|(id, _)| id).collect(), "replicated results");
    }

    fn check_requirements(&self) {
        let mut users: BTreeMap<RequirementId, usize> = BTreeMap::new();
        for (_, task) in self.tasks.iter() {
            *users.entry(task.requirement).or_default() += 1;
            if let Some(run) = task.run() {
                *users.entry(run.requirement).or_default() += 1;
            }
        }
        assert_eq!(users, self.requirements.users().collect(), "requirements are held as long as they are used");
        for id in self.requirements.ids() {
            for task in self.requirements.ready(id).iter().map(|task| &self.tasks[task]) {
                assert!(task.requirement == id && task.state_name().is_ready(), "{} stands in a wrong queue", task.key);
            }
            let allowed = self.requirements.eligible(id).iter().all(|worker| self.workers[worker].takes_tasks());
            assert!(allowed, "only workers that take tasks are eligible");
        }
    }

    /// What collections count is what a recount gives.
    fn check_collections(&self) {
        for (id, collection) in &self.collections {
            let mut recount = Collection::new(Requirements::default());
            let mut shares: BTreeMap<WorkerId, Share> = BTreeMap::new();
            for member in collection.members.iter() {
                let task = &self.tasks[member];
                assert!(task.member_of.contains(id), "{} knows its collection", task.key);
                recount.count(member, task, 1);
                assert_eq!(collection.retried.contains(member), task.failures > 0, "{} is counted as retried", task.key);
                let nbytes = task.replicas().map_or(0, |replicas| replicas.nbytes);
                for worker in task.run().map(|run| run.worker).iter().chain(task.holders()) {
                    let share = shares.entry(*worker).or_default();
                    share.tasks += 1;
                    share.nbytes += nbytes;
                }
            }
            assert_eq!(collection.task_counts(), recount.task_counts(), "counts of {id:?}");
            assert_eq!(collection.failed, recount.failed, "failures of {id:?}");
            assert_eq!(collection.shares, shares, "shares of {id:?}");
            let counts = collection.task_counts();
            assert_eq!(counts.total as usize, collection.members.len());
            for key in collection.outputs.iter().flat_map(|output| &output.keys) {
                assert!(self.tasks[*key].wanted_by.contains(&Owner::Collection(*id)), "outputs are wanted");
            }
        }
        let replicating = self.collections.iter().filter(|(_, collection)| collection.requirements.replicas > 1);
        assert_eq!(self.replicating, replicating.map(|(id, _)| *id).collect(), "collections that want copies");
        let standings =
            self.collections.iter().filter_map(|(id, collection)| collection.standing.map(|standing| (standing, *id)));
        assert_eq!(self.standings, standings.collect(), "standings");
        for (id, task) in self.tasks.iter() {
            assert!(task.member_of.iter().all(|member| self.collections[member].members.contains(id)), "{}", task.key);
        }
    }

    /// Who wants what is the reverse of who is wanted by whom, and what is wanted is on its way.
    fn check_clients(&self) {
        let mut wants: BTreeMap<Owner, TaskSet> = BTreeMap::new();
        for (id, task) in self.tasks.iter() {
            for owner in &task.wanted_by {
                assert!(wants.entry(*owner).or_default().insert(id), "{} is wanted twice by {owner:?}", task.key);
                assert_ne!(task.state_name(), StateName::Released, "{} is wanted and nothing is done for it", task.key);
            }
        }
        for (client, tasks) in self.clients.iter().filter(|(_, tasks)| !tasks.is_empty()) {
            assert_eq!(wants.get(&Owner::Client(*client)), Some(tasks), "what {client:?} wants");
        }
        for owner in wants.keys() {
            match owner {
                Owner::Client(client) => assert!(self.clients.contains_key(client)),
                Owner::Collection(collection) => assert!(self.collections.contains_key(collection)),
            }
        }
    }
}

fn sum_resources<'a>(all: impl Iterator<Item = &'a Resources>) -> Resources {
    let mut sum = Resources::default();
    for (name, amount) in all.flat_map(|resources| resources.iter()).filter(|(_, amount)| !amount.is_zero()) {
        let entry = sum.0.entry(name.to_owned()).or_default();
        *entry = entry.saturating_add(amount);
    }
    sum
}
