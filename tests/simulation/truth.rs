//! What the tasks of a run are, and what has to come of them whatever happens meanwhile.
//!
//! A key says what its task does and reads, as in Dask. So the value of each key is known from the start, and how its
//! attempts end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mainstay::dask::{RunSpec, TaskKey};
use mainstay::engine::{Amount, Annotations, Graph, GraphTask, Resources};

use crate::random::{Random, mix};
use crate::worker::Value;

/// How the attempts at a task end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The first so many attempts raise.
    Fails(u32),
    AlwaysFails,
    /// It takes its worker with it.
    Deadly,
    /// The first attempt asks for another worker.
    Reschedules,
    /// It gives its thread back on the way.
    Secedes,
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) key: TaskKey,
    pub(crate) dependencies: Vec<usize>,
    pub(crate) fate: Fate,
    pub(crate) duration_ms: u64,
    pub(crate) nbytes: u64,
    pub(crate) value: Value,
    gpus: u32,
    data_producer: bool,
}

/// All tasks of a run; each reads only those before it.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) tasks: Vec<Task>,
    places: BTreeMap<TaskKey, usize>,
}

impl Truth {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let count = random.between(8, 40);
        let (trouble, wide) = (random.between(8, 60), random.one_in(2));
        let mut tasks: Vec<Task> = Vec::new();
        for place in 0..count {
            let reach = if wide { place } else { place.min(4) };
            let mut dependencies: Vec<usize> =
                (0..random.below(4)).filter(|_| place > 0).map(|_| (place - 1 - random.below(reach)) as usize).collect();
            dependencies.sort_unstable();
            dependencies.dedup();
            let fate = match random.below(trouble) {
                0 => Fate::AlwaysFails,
                1 => Fate::Fails(random.between(1, 3) as u32),
                2 => Fate::Reschedules,
                3 => Fate::Secedes,
                4 if random.one_in(3) => Fate::Deadly,
                _ => Fate::Fails(0),
            };
            let inputs: Vec<Value> = dependencies.iter().map(|input| tasks[*input].value).collect();
            tasks.push(Task {
                key: TaskKey::from_text(&format!("{}-{place}", ["load", "clean", "sum"][(place % 3) as usize])),
                value: work(place as usize, &inputs),
                fate,
                duration_ms: *[1, 3, 20, 200, 3000].get(random.below(5) as usize).expect("a duration"),
                nbytes: *[8, 1000, 1_000_000, 100_000_000].get(random.below(4) as usize).expect("a size"),
                gpus: if random.one_in(8) { random.between(1, 2) as u32 } else { 0 },
                data_producer: dependencies.is_empty() && random.one_in(3),
                dependencies,
            });
        }
        let places = tasks.iter().enumerate().map(|(place, task)| (task.key.clone(), place)).collect();
        Self { tasks, places }
    }

    pub(crate) fn of(&self, key: &TaskKey) -> &Task {
        &self.tasks[self.places[key]]
    }

    /// What comes of a task on these inputs, right or wrong.
    pub(crate) fn compute(&self, key: &TaskKey, inputs: &BTreeMap<TaskKey, Value>) -> Option<Value> {
        let place = self.places[key];
        let read = self.tasks[place].dependencies.iter().map(|input| inputs.get(&self.tasks[*input].key).copied());
        Some(work(place, &read.collect::<Option<Vec<Value>>>()?))
    }

    /// All that these keys need, themselves included.
    pub(crate) fn closure<'k>(&self, keys: impl IntoIterator<Item = &'k TaskKey>) -> BTreeSet<usize> {
        let mut closure = BTreeSet::new();
        let mut pending: Vec<usize> = keys.into_iter().map(|key| self.places[key]).collect();
        while let Some(place) = pending.pop() {
            if closure.insert(place) {
                pending.extend(&self.tasks[place].dependencies);
            }
        }
        closure
    }

    /// The graph that makes these keys.
    pub(crate) fn graph(&self, wanted: &[TaskKey]) -> Graph {
        let closure = self.closure(wanted);
        let mut graph = Graph { keys: closure.iter().map(|place| self.tasks[*place].key.clone()).collect(), ..Graph::default() };
        let index = |place: &usize| closure.iter().position(|other| other == place).expect("it is in the closure") as u32;
        for place in &closure {
            let task = &self.tasks[*place];
            let start = graph.edges.len() as u32;
            graph.edges.extend(task.dependencies.iter().map(index));
            let annotations = (task.gpus > 0).then(|| {
                let amount = Amount::from_f64(f64::from(task.gpus)).expect("an amount");
                let resources = Some(Resources([("GPU".to_owned(), amount)].into()));
                graph.annotations.push(Annotations { resources, ..Annotations::default() });
                graph.annotations.len() as u32 - 1
            });
            graph.tasks.push(GraphTask {
                key: index(place),
                dependencies: start..graph.edges.len() as u32,
                order: *place as i64,
                data_producer: task.data_producer,
                actor: false,
                annotations,
                run_spec: RunSpec::new(Bytes::copy_from_slice(task.key.as_msgpack())),
            });
        }
        graph
    }

    /// Whether a key can be computed at all, however often it is tried.
    pub(crate) fn is_doomed(&self, key: &TaskKey) -> bool {
        let never = |place: &usize| matches!(self.tasks[*place].fate, Fate::AlwaysFails | Fate::Deadly);
        self.closure([key]).iter().any(never)
    }

    /// Whether a key has to be there in the end if each task may fail so often.
    pub(crate) fn is_certain(&self, key: &TaskKey, retries: u32) -> bool {
        let succeeds = |place: &usize| match self.tasks[*place].fate {
            Fate::Fails(times) => times <= retries,
            Fate::Reschedules | Fate::Secedes => true,
            Fate::AlwaysFails | Fate::Deadly => false,
        };
        self.closure([key]).iter().all(succeeds)
    }
}

fn work(place: usize, inputs: &[Value]) -> Value {
    inputs.iter().fold(mix(place as u64), |value, input| mix(value.rotate_left(7) ^ input))
}
