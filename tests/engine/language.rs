//! The language of scenarios: one stimulus a line, `#` starts a comment.
//!
//! ```text
//! config saturation=1.0 allowed-failures=1 bandwidth=1e6 tasks-max=3 intake=2 epoch=2 seed=7     before all others
//! at 1500                                            the time from here on, in milliseconds
//!
//! worker w1 threads=2 GPU=2 disk=nvme                joins and runs; capitals are resources, other words labels;
//!                                                    also address=, pod=, node=, builder. `joining` does not run yet
//! brings w1 a 10B | brings w1 a actor                what a worker that is `joining` has of an engine before this one:
//! brings w1 a run=70 GPU=1 [seceded] [given-up]      results, runs,
//! brings w1 a erred=70                               and what failed
//! hold | hold over | forget                          others may come back; they are back; nobody asks for the rest
//!
//! silent w1 | heard w1                               nothing is heard of it, and it speaks again
//! leaving w1 | staying w1                             its pod or node is going, or is not after all
//! status w1 paused | change w1 GPU=1 disk=hdd | heartbeat w1 a b | left w1 [expected]
//!
//! build c1: a; b <- a; c[retries=2] <- a b want c retries=1 GPU=1 workers=w1,w2 loose disk=nvme priority=5 fifo=1000
//!                                                    `a@2` is `a` done differently
//! apply c1 fifo=1000 generation=7                    tasks in order, what is wanted, requirements; `past=a:2` failed before
//! require c1 priority=3 | remove c1
//! override c1 load-*[retries=5]; sum[GPU=1]          from here on, instead of those before
//! submit k1: d[producer]; e[actor] <- d want e parent=a
//! desire k1 a | let-go k1 a | cancel k1 a [force] | retry a | scatter k1 data 10B w1 w2 | bye k1
//!
//! finished w1 a 10B 5ms                              answers to the last run of `a` that `w1` was given, or to `run=3`
//! erred w1 a | reschedule w1 a | long-running w1 a 5ms | steal-response w1 a ready
//! dropped w1 a | add-keys w1 a b | refresh w1 a b    what a worker says of replicas
//! drop w1 a b                                        somebody has no use for these replicas
//! timeout
//!
//! show states | brought | summary c1 | workers | who-has a | story a | ignored | timeout | builder disk=nvme
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay::dask::{HeldKey, RunSpec, Serialized, TaskKey, WorkerAddress};
use mainstay::engine::{
    Amount, Annotations, ClientId, CollectionId, Config, Engine, Exception, Failure, Graph, GraphTask, Instruction, Inventory,
    Millis, Override, Overrides, Past, Requirements, Resources, RunId, StartedRun, Stimulus, WorkerId, WorkerProfile,
    WorkerSelector, WorkerStatus,
};

use crate::draw::{place, places};
use crate::show::{Names, show_instruction, show_states, show_story, show_summary, show_workers};

/// An engine that is told what to do in words.
pub(crate) struct Play {
    engine: Engine,
    now: Millis,
    names: Names,
    /// The last run of each key on each worker.
    runs: BTreeMap<(WorkerId, TaskKey), RunId>,
    /// Every run by its number.
    numbered: BTreeMap<u64, RunId>,
    profiles: BTreeMap<WorkerId, WorkerProfile>,
    requirements: BTreeMap<CollectionId, Requirements>,
}

/// A word with its value, `retries=2`, or without, `force`.
type Options<'a> = Vec<(&'a str, &'a str)>;

impl Play {
    pub(crate) fn new() -> Self {
        Self::with(Config { epoch: 0, ..Config::default() }, 0)
    }

    fn with(config: Config, seed: u64) -> Self {
        Self {
            engine: Engine::new(config, seed),
            now: Millis(0),
            names: Names::default(),
            runs: BTreeMap::new(),
            numbered: BTreeMap::new(),
            profiles: BTreeMap::new(),
            requirements: BTreeMap::new(),
        }
    }

    /// Does what a line says, and returns what came of it.
    pub(crate) fn perform(&mut self, line: &str) -> Vec<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "config" => self.configure(&options(rest)),
            "at" => self.now = Millis(rest.parse().expect("a time in milliseconds")),
            "show" => return self.show(rest),
            _ => {
                let mut shown = Vec::new();
                for stimulus in self.stimuli(word, rest) {
                    shown.extend(self.handle(stimulus));
                }
                return shown;
            }
        }
        Vec::new()
    }

    fn handle(&mut self, stimulus: Stimulus) -> Vec<String> {
        let mut instructions = Vec::new();
        self.engine.handle_stimulus(self.now, stimulus, &mut instructions);
        for instruction in &instructions {
            if let Instruction::ComputeTask { worker, run_id } = *instruction {
                let task = self.engine.compute_task(run_id).expect("a run that was not given up");
                self.runs.insert((worker, task.key().clone()), run_id);
                self.numbered.insert(run_id.number(), run_id);
            }
        }
        instructions.iter().map(|instruction| show_instruction(&self.engine, &self.names, instruction)).collect()
    }

    fn configure(&mut self, options: &Options<'_>) {
        let mut config = Config { epoch: 0, ..Config::default() };
        let mut seed = 0;
        for (name, value) in options {
            match *name {
                "epoch" => config.epoch = value.parse().expect("an epoch"),
                "saturation" => config.worker_saturation = value.parse().expect("a saturation"),
                "allowed-failures" => config.allowed_failures = value.parse().expect("a number of failures"),
                "bandwidth" => config.bandwidth = value.parse().expect("bytes per second"),
                "tasks-max" => config.tasks_max = value.parse().expect("a number of tasks"),
                "intake" => config.intake_tasks_max = value.parse().expect("a number of tasks"),
                "seed" => seed = value.parse().expect("a seed"),
                other => panic!("no such setting: {other}"),
            }
        }
        *self = Self::with(config, seed);
    }

    fn show(&self, rest: &str) -> Vec<String> {
        let (what, of) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "states" => show_states(&self.engine),
            "brought" => {
                let stats = self.engine.stats();
                let (results, runs) = (stats.adopted_results, stats.adopted_runs);
                vec![format!("{} left, {results} results and {runs} runs taken over", self.engine.brought())]
            }
            "summary" => show_summary(&self.engine, CollectionId(number(of))),
            "workers" => show_workers(&self.engine, &self.names),
            "story" => show_story(&self.engine, &self.names, &key(of)),
            "who-has" => vec![format!("{:?}", self.engine.who_has(&key(of)).iter().map(ToString::to_string).collect::<Vec<_>>())],
            "ignored" => vec![format!("{:?}", self.engine.stats().ignored_stimuli)],
            "timeout" => vec![format!("{:?}", self.engine.next_timeout().map(|at| at.0))],
            "builder" => {
                let requirements = requirements(&options(of), Requirements::default());
                vec![self.engine.choose_builder(&requirements).map_or("none".to_owned(), |id| self.names.worker(id))]
            }
            other => panic!("cannot show {other}"),
        }
    }

    fn stimuli(&mut self, word: &str, rest: &str) -> Vec<Stimulus> {
        match word {
            "worker" | "joining" => self.join(word == "worker", rest),
            "status" | "change" | "heartbeat" | "left" | "silent" | "heard" | "leaving" | "staying" => {
                vec![self.of_worker(word, rest)]
            }
            "finished" | "erred" | "reschedule" | "long-running" | "dropped" | "steal-response" => vec![self.of_task(word, rest)],
            "add-keys" | "refresh" | "drop" => {
                let (worker, keys) = self.worker_and_keys(rest);
                vec![match word {
                    "add-keys" => Stimulus::AddKeys { worker, keys },
                    "drop" => Stimulus::DropReplicas { worker, keys },
                    _ => Stimulus::RequestRefreshWhoHas { worker, keys },
                }]
            }
            "apply" | "build" | "require" | "override" | "remove" => vec![self.of_collection(word, rest)],
            "placed" | "shuffle-restarted" => vec![self.of_shuffle(word, rest)],
            "brings" => vec![self.brings(rest)],
            "hold" => vec![Stimulus::Hold { holds: rest != "over" }],
            "forget" => vec![Stimulus::ForgetBrought],
            "timeout" => vec![Stimulus::Timeout],
            _ => vec![self.of_client(word, rest)],
        }
    }

    fn join(&mut self, runs: bool, rest: &str) -> Vec<Stimulus> {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let worker = self.names.add_worker(name);
        let mut profile = WorkerProfile {
            address: WorkerAddress::new(format!("tcp://{name}:1")),
            name: name.to_owned(),
            pod: None,
            node: None,
            nthreads: 1,
            memory_limit: None,
            resources: Resources::default(),
            labels: BTreeMap::new(),
            builder: false,
        };
        for (option, value) in options(rest) {
            match option {
                "threads" => profile.nthreads = value.parse().expect("a number of threads"),
                "address" => profile.address = WorkerAddress::new(value),
                "pod" => profile.pod = Some(value.to_owned()),
                "node" => profile.node = Some(value.to_owned()),
                "builder" => profile.builder = true,
                _ => set_property(&mut profile, option, value),
            }
        }
        self.profiles.insert(worker, profile.clone());
        let joined = Stimulus::WorkerJoined { worker, profile };
        if runs { vec![joined, Stimulus::WorkerStatusChanged { worker, status: WorkerStatus::Running }] } else { vec![joined] }
    }

    fn brings(&self, rest: &str) -> Stimulus {
        let options = options(rest);
        let (worker, key) = (self.names.id_of_worker(options[0].0), key(options[1].0));
        let run = |wanted: &str| {
            let found = options.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, run)| RunId(run.parse().expect("a run")))
        };
        let is = |word: &str| options.iter().any(|(name, _)| *name == word);
        let mut inventory = Inventory::default();
        if let Some(run_id) = run("run") {
            let taken = options.iter().filter(|(name, _)| name.starts_with(char::is_uppercase));
            let resources = Resources(taken.map(|(name, taken)| ((*name).to_owned(), amount(taken))).collect());
            let (has_thread, is_wanted) = (!is("seceded"), !is("given-up"));
            inventory.runs.push(StartedRun { key, run_id, has_thread, is_wanted, resources });
        } else if let Some(run_id) = run("erred") {
            inventory.failures.push((key, run_id, failure("ValueError: bad row")));
        } else {
            let nbytes =
                options.iter().find_map(|(word, _)| word.strip_suffix('B')).map_or(0, |bytes| bytes.parse().expect("bytes"));
            inventory.held.push(HeldKey { key, nbytes, type_pickle: Bytes::from_static(b"int"), is_actor: is("actor") });
        }
        Stimulus::WorkerInventory { worker, inventory }
    }

    fn of_worker(&mut self, word: &str, rest: &str) -> Stimulus {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let worker = self.names.id_of_worker(name);
        match word {
            "status" => Stimulus::WorkerStatusChanged { worker, status: status(rest) },
            "leaving" | "staying" => Stimulus::WorkerLeaving { worker, leaving: word == "leaving" },
            "silent" => Stimulus::WorkerSilent { worker },
            "heard" => Stimulus::WorkerHeard { worker },
            "left" => {
                let (expected, barriers): (Vec<&str>, Vec<&str>) = rest.split_whitespace().partition(|word| *word == "expected");
                let barriers = barriers.into_iter().map(key).collect();
                Stimulus::WorkerLeft { worker, expected: !expected.is_empty(), barriers }
            }
            "heartbeat" => {
                let (bandwidth, executing): (Options<'_>, Options<'_>) =
                    options(rest).into_iter().partition(|(name, _)| *name == "bandwidth");
                let bandwidth = bandwidth.first().map(|(_, value)| value.parse().expect("bytes per second"));
                let executing = executing.iter().map(|(name, _)| key(name)).collect();
                Stimulus::WorkerHeartbeat { worker, memory: 0, bandwidth, executing }
            }
            _ => {
                let profile = self.profiles.get_mut(&worker).expect("a worker that joined");
                profile.labels.clear();
                profile.resources = Resources::default();
                profile.builder = false;
                for (option, value) in options(rest) {
                    match option {
                        "builder" => profile.builder = true,
                        _ => set_property(profile, option, value),
                    }
                }
                let WorkerProfile { labels, resources, builder, .. } = profile.clone();
                Stimulus::WorkerChanged { worker, labels, resources, builder }
            }
        }
    }

    /// The run of this number; one that never was if there is none.
    fn run_numbered(&self, number: u64) -> RunId {
        self.numbered.get(&number).copied().unwrap_or(RunId(number))
    }

    fn of_task(&mut self, word: &str, rest: &str) -> Stimulus {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let (worker, key) = (self.names.id_of_worker(words[0]), key(words[1]));
        let given = words.iter().find_map(|word| word.strip_prefix("run="));
        let run_id = given.map_or_else(
            || self.runs.get(&(worker, key.clone())).copied().unwrap_or(RunId(0)),
            |run| self.run_numbered(run.parse().expect("a run")),
        );
        let compute_ms = words.iter().find_map(|word| word.strip_suffix("ms")).map(|ms| ms.parse().expect("milliseconds"));
        match word {
            "finished" => {
                let nbytes =
                    words.iter().find_map(|word| word.strip_suffix('B')).map_or(0, |bytes| bytes.parse().expect("bytes"));
                let type_pickle = Bytes::from_static(b"int");
                Stimulus::TaskFinished { worker, key, run_id, nbytes, type_pickle, compute_ms }
            }
            "erred" => Stimulus::TaskErred { worker, key, run_id, failure: failure("ValueError: bad row") },
            "reschedule" => Stimulus::Reschedule { worker, key },
            "long-running" => Stimulus::LongRunning { worker, key, run_id, compute_ms },
            "dropped" => Stimulus::ReleaseWorkerData { worker, key },
            _ => {
                let state = words.get(2).filter(|word| !word.contains('=')).map(|state| (*state).to_owned());
                Stimulus::StealResponse { worker, key, run_id, state }
            }
        }
    }

    fn of_collection(&mut self, word: &str, rest: &str) -> Stimulus {
        let (name, rest) = rest.split_once([':', ' ']).unwrap_or((rest, ""));
        let collection = CollectionId(number(name));
        match word {
            "apply" => {
                let options = options(rest);
                let number = |wanted: &str| {
                    let found = options.iter().find(|(name, _)| *name == wanted);
                    found.map(|(_, number)| number.parse::<u64>().expect("a number"))
                };
                let fifo_timeout_ms = number("fifo").unwrap_or(Requirements::default().fifo_timeout_ms);
                Stimulus::CollectionApplied { collection, fifo_timeout_ms, generation: number("generation") }
            }
            "build" => {
                let asked = asked_for(rest);
                let past = past(&asked.options);
                let overrides = self.requirements.get(&collection).map(|before| before.overrides.clone()).unwrap_or_default();
                let requirements = requirements(&asked.options, Requirements { overrides, ..Requirements::default() });
                self.requirements.insert(collection, requirements.clone());
                let outputs = vec![("out".to_owned(), asked.wanted)];
                Stimulus::CollectionBuilt { collection, graph: asked.graph, outputs, requirements, past }
            }
            "require" => {
                let before = self.requirements.get(&collection).cloned().unwrap_or_default();
                let requirements = requirements(&options(rest), before);
                self.requirements.insert(collection, requirements.clone());
                Stimulus::CollectionChanged { collection, requirements }
            }
            "override" => {
                let requirements = self.requirements.entry(collection).or_default();
                requirements.overrides = overrides(rest);
                Stimulus::CollectionChanged { collection, requirements: requirements.clone() }
            }
            _ => Stimulus::CollectionRemoved { collection },
        }
    }

    fn of_shuffle(&mut self, word: &str, rest: &str) -> Stimulus {
        match word {
            "placed" => {
                let outputs = options(rest).into_iter().map(|(output, worker)| (key(output), self.names.id_of_worker(worker)));
                Stimulus::ShufflePlaced { outputs: outputs.collect() }
            }
            _ => Stimulus::ShuffleRestarted { barrier: key(rest) },
        }
    }

    fn of_client(&mut self, word: &str, rest: &str) -> Stimulus {
        if word == "retry" {
            return Stimulus::RetryKeys { keys: rest.split_whitespace().map(key).collect() };
        }
        if word == "restrict" {
            let (restricted, names) = rest.split_once(' ').unwrap_or((rest, ""));
            let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
            let workers = (!names.is_empty()).then(|| WorkerSelector { names, ..WorkerSelector::default() });
            return Stimulus::RestrictTasks { tasks: vec![(key(restricted), workers)] };
        }
        let (name, rest) = rest.split_once([':', ' ']).unwrap_or((rest, ""));
        let client = ClientId(number(name));
        let mut words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "submit" => {
                let Asked { mut graph, wanted, options } = asked_for(rest);
                let parent = options.iter().find(|(name, _)| *name == "parent");
                let submitting_task = parent.map(|(_, parent)| key(parent));
                let requirements = requirements(&options, Requirements::default());
                let wanted = wanted.iter().map(|key| place(&mut graph, key)).collect();
                Stimulus::UpdateGraph { client, graph, wanted, requirements, submitting_task }
            }
            "desire" => Stimulus::ClientDesiresKeys { client, keys: words.into_iter().map(key).collect() },
            "let-go" => Stimulus::ClientReleasesKeys { client, keys: words.into_iter().map(key).collect() },
            "cancel" => {
                let force = words.last() == Some(&"force");
                words.retain(|word| *word != "force");
                Stimulus::CancelKeys { client, keys: words.into_iter().map(key).collect(), force }
            }
            "scatter" => Stimulus::DataScattered {
                client,
                key: key(words[0]),
                nbytes: words[1].trim_end_matches('B').parse().expect("bytes"),
                typename: "int".to_owned(),
                workers: words[2..].iter().map(|name| self.names.id_of_worker(name)).collect(),
            },
            "bye" => Stimulus::ClientLeft { client },
            other => panic!("no such stimulus: {other}"),
        }
    }

    fn worker_and_keys(&mut self, rest: &str) -> (WorkerId, Vec<TaskKey>) {
        let mut words = rest.split_whitespace();
        let worker = self.names.id_of_worker(words.next().expect("a worker"));
        (worker, words.map(key).collect())
    }
}

/// What `build` and `submit` ask for.
struct Asked<'a> {
    graph: Graph,
    wanted: Vec<TaskKey>,
    options: Options<'a>,
}

/// `a; b <- a; c[retries=2] <- a b want c retries=1`
fn asked_for(text: &str) -> Asked<'_> {
    let (tasks, rest) = text.split_once("want ").unwrap_or((text, ""));
    let mut graph = Graph::default();
    for (order, task) in tasks.split(';').map(str::trim).filter(|task| !task.is_empty()).enumerate() {
        let (head, dependencies) = task.split_once("<-").unwrap_or((task, ""));
        let (name, own) = head.trim().split_once('[').unwrap_or((head.trim(), ""));
        let own = options(own.trim_end_matches(']'));
        let is = |word: &str| own.iter().any(|(name, _)| *name == word);
        let own_annotations = annotations(&own);
        let annotated = own_annotations != Annotations::default();
        if annotated {
            graph.annotations.push(own_annotations);
        }
        if let Some((_, given)) = own.iter().find(|(word, _)| *word == "name") {
            graph.names.insert(key(name), (*given).into());
        }
        let dependencies: Vec<TaskKey> = dependencies.split_whitespace().map(key).collect();
        let (key, dependencies) = places(&mut graph, &key(name.split('@').next().unwrap_or(name)), &dependencies);
        graph.tasks.push(GraphTask {
            key,
            dependencies,
            order: order as i64,
            data_producer: is("producer"),
            actor: is("actor"),
            annotations: annotated.then(|| graph.annotations.len() as u32 - 1),
            run_spec: RunSpec::new(Bytes::copy_from_slice(name.as_bytes())),
        });
    }
    let is_key = |word: &&str| !word.contains('=') && *word != "loose";
    let words: Vec<&str> = rest.split_whitespace().collect();
    let wanted = words.iter().copied().take_while(is_key).map(key).collect();
    let options = words.iter().skip_while(|word| is_key(word)).map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    Asked { graph, wanted, options }
}

fn annotations(options: &Options<'_>) -> Annotations {
    let mut annotations = Annotations::default();
    for (name, value) in options {
        match *name {
            "producer" | "actor" | "name" => {}
            "retries" => annotations.retries = Some(value.parse().expect("retries")),
            "priority" => annotations.priority = Some(value.parse().expect("a priority")),
            "workers" => {
                let names = value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                annotations.workers.get_or_insert_default().names = names;
            }
            "loose" => annotations.allow_other_workers = Some(*value != "no"),
            "executor" => annotations.executor = Some((*value).to_owned()),
            label if label.starts_with(char::is_lowercase) => {
                let labels = &mut annotations.workers.get_or_insert_default().match_labels;
                labels.insert(label.to_owned(), (*value).to_owned());
            }
            resource => {
                annotations.resources.get_or_insert_default().0.insert(resource.to_owned(), amount(value));
            }
        }
    }
    annotations
}

/// `load-*[retries=5]; sum[GPU=1]`
fn overrides(text: &str) -> Overrides {
    let one = |text: &str| {
        let (keys, own) = text.rsplit_once('[').expect("a pattern with conditions in brackets");
        Override { keys: keys.to_owned(), conditions: annotations(&options(own.trim_end_matches(']'))) }
    };
    Overrides::new(text.split(';').map(str::trim).filter(|one| !one.is_empty()).map(one).collect()).expect("overrides")
}

fn requirements(options: &Options<'_>, mut requirements: Requirements) -> Requirements {
    for (name, value) in options {
        let mut selector = requirements.workers.clone().unwrap_or_default();
        match *name {
            "parent" | "past" => continue,
            "retries" => requirements.retries = value.parse().expect("retries"),
            "priority" => requirements.priority = value.parse().expect("a priority"),
            "replicas" => requirements.replicas = value.parse().expect("a number of replicas"),
            "fifo" => requirements.fifo_timeout_ms = value.parse().expect("milliseconds"),
            "loose" => requirements.allow_other_workers = true,
            "workers" => selector.names = value.split(',').map(str::to_owned).collect(),
            resource if resource.starts_with(char::is_uppercase) => {
                requirements.resources.0.insert(resource.to_owned(), amount(value));
            }
            label => {
                selector.match_labels.insert(label.to_owned(), (*value).to_owned());
            }
        }
        requirements.workers = (selector != WorkerSelector::default()).then_some(selector);
    }
    requirements
}

/// `past=a:2,b:1`: how often tasks failed in engines before this one.
fn past(options: &Options<'_>) -> Past {
    let Some((_, past)) = options.iter().find(|(name, _)| *name == "past") else { return Past::default() };
    let failures = past.split(',').map(|task| task.split_once(':').expect("key:failures"));
    let failures: Vec<_> = failures.map(|(name, failures)| (key(name), failures.parse().expect("failures"))).collect();
    Past { retries_used: failures.iter().map(|(_, failures)| u64::from(*failures)).sum(), worker_lost: 0, failures }
}

fn set_property(profile: &mut WorkerProfile, name: &str, value: &str) {
    if name.starts_with(char::is_uppercase) {
        profile.resources.0.insert(name.to_owned(), amount(value));
    } else {
        profile.labels.insert(name.to_owned(), value.to_owned());
    }
}

fn options(text: &str) -> Options<'_> {
    text.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

fn status(name: &str) -> WorkerStatus {
    match name {
        "init" => WorkerStatus::Init,
        "running" => WorkerStatus::Running,
        "paused" => WorkerStatus::Paused,
        "closing-gracefully" => WorkerStatus::ClosingGracefully,
        "closing" => WorkerStatus::Closing,
        other => panic!("no such status: {other}"),
    }
}

fn amount(text: &str) -> Amount {
    Amount::from_f64(text.parse().expect("an amount")).expect("an amount")
}

fn key(text: &str) -> TaskKey {
    TaskKey::from_text(text)
}

fn number(name: &str) -> u32 {
    name.trim_start_matches(char::is_alphabetic).parse().expect("a name such as c1")
}

pub(crate) fn failure(text: &str) -> Failure {
    Failure {
        exception: Exception::Raised { exception: Serialized::default(), traceback: None },
        exception_text: text.to_owned(),
        traceback_text: "at line 1".to_owned(),
    }
}
