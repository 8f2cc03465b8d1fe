//! Graphs that are larger than any test that looks at every task after every stimulus.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay::dask::{RunSpec, TaskKey, WorkerAddress};
use mainstay::engine::{
    ClientId, CollectionId, Config, Engine, Exception, Graph, GraphTask, Instruction, Millis, Past, Requirements, Resources,
    RunId, Stimulus, WorkerId, WorkerProfile, WorkerStatus,
};

const SIZE: usize = 10_000;
const WORKER: WorkerId = WorkerId(1);

fn key(index: usize) -> TaskKey {
    TaskKey::from_text(&format!("t-{index}"))
}

/// Tasks in order, each with the dependencies that `of` names.
fn graph(of: impl Fn(usize) -> Vec<usize>) -> Graph {
    let mut edges = Vec::new();
    let mut task = |index: usize| GraphTask {
        key: index as u32,
        dependencies: {
            let start = edges.len() as u32;
            edges.extend(of(index).into_iter().map(|dependency| dependency as u32));
            start..edges.len() as u32
        },
        order: index as i64,
        data_producer: false,
        actor: false,
        annotations: None,
        run_spec: RunSpec::new(Bytes::new()),
    };
    let tasks = (0..SIZE).map(&mut task).collect();
    Graph { keys: (0..SIZE).map(key).collect(), tasks, edges, ..Graph::default() }
}

/// An engine with one worker that ends each run at once.
struct Large {
    engine: Engine,
    runs: VecDeque<(TaskKey, RunId)>,
}

impl Large {
    fn new() -> Self {
        let profile = WorkerProfile {
            address: WorkerAddress::new("tcp://w:1"),
            name: "w".to_owned(),
            pod: None,
            node: None,
            nthreads: 4,
            memory_limit: None,
            resources: Resources::default(),
            labels: BTreeMap::new(),
            builder: false,
        };
        let mut large = Self { engine: Engine::new(Config::default(), 0), runs: VecDeque::new() };
        large.handle(Stimulus::WorkerJoined { worker: WORKER, profile });
        large.handle(Stimulus::WorkerStatusChanged { worker: WORKER, status: WorkerStatus::Running });
        large
    }

    fn handle(&mut self, stimulus: Stimulus) -> Vec<Instruction> {
        let mut instructions = Vec::new();
        self.engine.handle_stimulus(Millis(0), stimulus, &mut instructions);
        for instruction in &instructions {
            if let Instruction::ComputeTask { run_id, .. } = *instruction {
                let task = self.engine.compute_task(run_id).expect("a run that was not given up");
                self.runs.push_back((task.key().clone(), run_id));
            }
        }
        instructions
    }

    /// Until nothing runs and nothing is due.
    fn run_all(&mut self) {
        while self.engine.next_timeout() == Some(Millis(0)) {
            self.handle(Stimulus::Timeout);
        }
        while let Some((key, run_id)) = self.runs.pop_front() {
            self.handle(Stimulus::TaskFinished {
                worker: WORKER,
                key,
                run_id,
                nbytes: 8,
                type_pickle: Bytes::new(),
                compute_ms: Some(1.0),
            });
        }
    }
}

#[test]
fn a_long_chain_runs_and_is_forgotten() {
    let mut large = Large::new();
    let chain = graph(|index| index.checked_sub(1).into_iter().collect());
    let (client, requirements) = (ClientId(1), Requirements::default());
    let (last, wanted) = (key(SIZE - 1), vec![SIZE as u32 - 1]);
    large.handle(Stimulus::UpdateGraph { client, graph: chain, wanted, requirements, submitting_task: None });
    large.run_all();
    assert_eq!(large.engine.task_state(&last), Some("memory"));
    assert_eq!(large.engine.has_what(WORKER), [last]);
    large.handle(Stimulus::ClientLeft { client });
    large.engine.check_invariants();
    assert!(large.engine.tasks_known() > 0, "others have their turn before all is forgotten");
    large.run_all();
    large.engine.check_invariants();
    assert_eq!(large.engine.tasks_known(), 0);
}

#[test]
fn a_wide_graph_runs_and_is_released() {
    let mut large = Large::new();
    let fan = graph(|index| if index == 0 { vec![] } else { vec![0] });
    let collection = CollectionId(1);
    let outputs = vec![("out".to_owned(), (1..SIZE).map(key).collect())];
    large.handle(Stimulus::CollectionBuilt {
        collection,
        graph: fan,
        outputs,
        requirements: Requirements::default(),
        past: Past::default(),
    });
    large.run_all();
    let summary = large.engine.summary(collection).expect("a collection");
    assert_eq!((summary.tasks.done, summary.outputs[0].in_memory), (SIZE as u64, SIZE as u64 - 1));
    large.handle(Stimulus::CollectionRemoved { collection });
    large.run_all();
    large.engine.check_invariants();
    assert_eq!(large.engine.tasks_known(), 0);
}

#[test]
fn what_is_named_anew_was_forgotten_before() {
    let mut large = Large::new();
    let submit = |large: &mut Large, graph: Graph| {
        let (client, wanted, requirements) = (ClientId(1), vec![SIZE as u32 - 1], Requirements::default());
        large.handle(Stimulus::UpdateGraph { client, graph, wanted, requirements, submitting_task: None });
    };
    submit(&mut large, graph(|index| index.checked_sub(1).into_iter().collect()));
    large.run_all();
    large.handle(Stimulus::ClientReleasesKeys { client: ClientId(1), keys: vec![key(SIZE - 1)] });
    // Other tasks of the same names: they read nothing.
    submit(&mut large, graph(|_| vec![]));
    large.run_all();
    large.engine.check_invariants();
    assert_eq!(large.engine.tasks_known(), 1);
    assert_eq!(large.engine.task_state(&key(SIZE - 1)), Some("memory"));
}

#[test]
fn a_long_cycle_is_refused() {
    let mut large = Large::new();
    let cycle = graph(|index| vec![(index + 1) % SIZE]);
    let (client, requirements) = (ClientId(1), Requirements::default());
    let told = large.handle(Stimulus::UpdateGraph { client, graph: cycle, wanted: vec![0], requirements, submitting_task: None });
    let [Instruction::TaskErred { exception: Exception::Refused { message }, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(message.len() < 200, "{message}");
    assert!(message.starts_with("the graph has a cycle: t-0 → t-1 → "), "{message}");
}
