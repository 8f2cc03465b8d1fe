//! What the engine alone takes for a task: no sockets, no encoding, no Client. For profiles; `make bench` measures the
//! whole.
//!
//! ```text
//! cargo run --release --no-default-features --example engine -- tree 100000 16 8
//! ```

#![allow(clippy::print_stdout, reason = "figures are its output")]

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mainstay::dask::{RunSpec, TaskKey, WorkerAddress};
use mainstay::engine::{
    ClientId, Config, Engine, Graph, GraphTask, Instruction, Millis, Requirements, Resources, RunId, Stimulus, WorkerId,
    WorkerProfile, WorkerStatus,
};

/// What each task depends on, in an order in which they can run.
fn shape(name: &str, count: usize) -> Vec<Vec<usize>> {
    match name {
        "independent" => vec![vec![]; count],
        "chains" => (0..count).map(|n| if n < 100 { vec![] } else { vec![n - 100] }).collect(),
        "stencil" => (0..count)
            .map(|n| match n {
                0..100 => vec![],
                n => (n - 101..=n - 99).filter(|near| near / 100 == n / 100 - 1).collect(),
            })
            .collect(),
        "shuffle" => {
            let width = count.isqrt();
            let piece = |row: usize, column: usize| width + row * width + column;
            let mut tasks = vec![vec![]; width];
            tasks.extend((0..width).flat_map(|row| (0..width).map(move |_| vec![row])));
            tasks.extend((0..width).map(|column| (0..width).map(|row| piece(row, column)).collect()));
            tasks
        }
        "tree" => {
            let mut tasks = vec![vec![]; count * 7 / 8];
            let mut level = 0..tasks.len();
            while level.len() > 1 {
                let start = tasks.len();
                let nodes: Vec<usize> = level.collect();
                tasks.extend(nodes.chunks(8).map(<[usize]>::to_vec));
                level = start..tasks.len();
            }
            tasks
        }
        other => panic!("no shape {other}: independent, chains, stencil, shuffle or tree"),
    }
}

/// Keys `("task-5f2a…", 0)`, … as slices of one document, which is how they arrive.
fn keys(count: usize) -> Vec<TaskKey> {
    let ends = |bytes: &[u8]| TaskKey::from_msgpack(bytes.to_vec()).expect("a key").as_msgpack().len();
    let one = |index: usize| [b"\x92\xad", &b"task-5f2a77b1"[..], &[0xce], &(index as u32).to_be_bytes()].concat();
    let length = ends(&one(0));
    let document: Bytes = (0..count).flat_map(one).collect();
    let slice = |index: usize| document.slice(index * length..(index + 1) * length);
    (0..count).map(|index| TaskKey::from_msgpack(slice(index)).expect("a key")).collect()
}

struct Driver {
    engine: Engine,
    runs: BTreeMap<WorkerId, VecDeque<(TaskKey, RunId)>>,
    instructions: Vec<Instruction>,
    /// The most nanoseconds that one stimulus took.
    longest: usize,
}

impl Driver {
    fn new(workers: u32, nthreads: u32) -> Self {
        let mut driver =
            Self { engine: Engine::new(Config::default(), 0), runs: BTreeMap::new(), instructions: Vec::new(), longest: 0 };
        for worker in (0..workers).map(WorkerId) {
            let profile = WorkerProfile {
                address: WorkerAddress::new(format!("tcp://10.0.{}.{}:40000", worker.0 / 256, worker.0 % 256)),
                name: format!("w-{}", worker.0),
                pod: None,
                node: None,
                nthreads,
                memory_limit: None,
                resources: Resources::default(),
                labels: BTreeMap::new(),
                builder: false,
            };
            driver.handle(Stimulus::WorkerJoined { worker, profile });
            driver.handle(Stimulus::WorkerStatusChanged { worker, status: WorkerStatus::Running });
        }
        driver
    }

    fn handle(&mut self, stimulus: Stimulus) {
        let mut instructions = std::mem::take(&mut self.instructions);
        self.engine.handle_stimulus(Millis(0), stimulus, &mut instructions);
        for instruction in instructions.drain(..) {
            if let Instruction::ComputeTask { worker, run_id } = instruction
                && let Some(task) = self.engine.compute_task(run_id)
            {
                self.runs.entry(worker).or_default().push_back((task.key().clone(), run_id));
            }
        }
        self.instructions = instructions;
    }

    /// The same for what may take long; to look at the clock takes longer than most stimuli.
    fn handle_timed(&mut self, stimulus: Stimulus) {
        let began = cpu_nanoseconds();
        self.handle(stimulus);
        self.longest = self.longest.max(cpu_nanoseconds().saturating_sub(began));
    }

    /// What is large is taken in and let go of by parts.
    fn run_parts(&mut self) {
        while self.engine.next_timeout() == Some(Millis(0)) {
            self.handle_timed(Stimulus::Timeout);
        }
    }

    /// The longest stimulus since the last call, in nanoseconds.
    fn take_longest(&mut self) -> usize {
        std::mem::take(&mut self.longest)
    }

    /// Each worker in turn answers for all that it has.
    fn run_all(&mut self) {
        loop {
            let all: Vec<(WorkerId, VecDeque<(TaskKey, RunId)>)> = std::mem::take(&mut self.runs).into_iter().collect();
            if all.is_empty() {
                return;
            }
            for (worker, runs) in all {
                for (key, run_id) in runs {
                    let type_pickle = Bytes::from_static(b"int");
                    let compute_ms = Some(0.01);
                    self.handle(Stimulus::TaskFinished { worker, key, run_id, nbytes: 28, type_pickle, compute_ms });
                }
            }
        }
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
}

/// What this thread has had of a CPU.
fn cpu_nanoseconds() -> usize {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedstat.split_whitespace().next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or_default()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize, default: &str| words.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let number = |index: usize, default: &str| word(index, default).parse::<usize>().expect("a number");
    let (name, count, workers, nthreads) = (word(0, "independent"), number(1, "100000"), number(2, "16"), number(3, "8"));
    let edges = shape(&name, count);
    let tasks = edges.len();
    let mut is_read = vec![false; tasks];
    edges.iter().flatten().for_each(|read| is_read[*read] = true);
    let keys = keys(tasks);
    let wanted: Vec<u32> = (0..tasks as u32).filter(|index| !is_read[*index as usize]).collect();
    let mut places = Vec::new();
    let mut task = |(index, reads): (usize, &Vec<usize>)| GraphTask {
        key: index as u32,
        dependencies: {
            let start = places.len() as u32;
            places.extend(reads.iter().map(|read| *read as u32));
            start..places.len() as u32
        },
        order: index as i64,
        data_producer: false,
        actor: false,
        annotations: None,
        run_spec: RunSpec::new(Bytes::from_static(b"run spec")),
    };
    let tasks_of_graph = edges.iter().enumerate().map(&mut task).collect();
    let graph = Graph { keys, tasks: tasks_of_graph, edges: places, ..Graph::default() };
    let mut driver = Driver::new(workers as u32, nthreads as u32);
    let before = resident_bytes();
    let mut since = cpu_nanoseconds();
    let mut lap = |what: &str, longest: Option<usize>| {
        let nanoseconds = (cpu_nanoseconds() - since) / tasks;
        let held = resident_bytes().saturating_sub(before) / tasks;
        let stall = longest.map_or(String::new(), |longest| format!(", {:6} µs the longest stimulus", longest / 1_000));
        println!("{what:8} {nanoseconds:6} ns/task, {held:5} B/task{stall}");
        since = cpu_nanoseconds();
    };
    let client = ClientId(1);
    driver.handle_timed(Stimulus::UpdateGraph {
        client,
        graph,
        wanted,
        requirements: Requirements::default(),
        submitting_task: None,
    });
    driver.run_parts();
    lap("intake", Some(driver.take_longest()));
    driver.run_all();
    lap("run", None);
    driver.handle_timed(Stimulus::ClientLeft { client });
    driver.run_parts();
    lap("release", Some(driver.take_longest()));
}
