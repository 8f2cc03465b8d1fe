//! What workers have to be told of peer-to-peer shuffles, which is Python objects.
//!
//! Source: distributed 2026.8.0, shuffle/_core.py: `ShuffleRunSpec`; shuffle/_worker_plugin.py; shuffle/_exceptions.py.

use crate::dask::{Partition, ShuffleSpec, WorkerAddress};
use crate::wire::pickle::Object;

impl Object {
    /// The plugin that every worker has under the name `shuffle`.
    pub fn shuffle_plugin() -> Self {
        Self::call("distributed.shuffle._worker_plugin", "ShuffleWorkerPlugin", Vec::new())
    }

    /// What tells a worker that it is of an earlier run.
    pub fn p2p_consistency_error(text: &str) -> Self {
        Self::call("distributed.shuffle._exceptions", "P2PConsistencyError", vec![Self::text(text)])
    }

    /// A run: its number, the pickled spec, and for each partition the place of its worker in `makers`.
    ///
    /// Made without a call of the class, which would give it a number of its own.
    pub fn shuffle_run_spec(run: u64, spec: &ShuffleSpec, makers: &[WorkerAddress], maker_of: &[u32]) -> Self {
        let class = Self::Global("distributed.shuffle._core", "ShuffleRunSpec");
        let fields = vec![
            (Self::text("run_id"), Self::Integer(run.cast_signed())),
            (Self::text("spec"), Self::call("pickle", "loads", vec![Self::Binary(spec.pickle.clone())])),
            (Self::text("worker_for"), worker_for(&spec.partitions, makers, maker_of)),
            (Self::text("span_id"), Self::None),
        ];
        let blank = Self::call("builtins", "object.__new__", vec![class]);
        Self::WithState(Box::new(blank), Box::new(Self::Dict(fields)))
    }
}

/// `dict(zip(partitions, map(getitem, repeat(makers), maker_of)))`: each address is there once, and not for each partition.
fn worker_for(partitions: &[Partition], makers: &[WorkerAddress], maker_of: &[u32]) -> Object {
    let numbers = |numbers: &[i64]| Object::Tuple(numbers.iter().copied().map(Object::Integer).collect());
    let partitions = partitions.iter().map(|partition| match partition {
        Partition::Number(number) => Object::Integer(*number),
        Partition::Chunk(place) => numbers(place),
    });
    let makers = Object::List(makers.iter().map(|maker| Object::text(maker.as_str())).collect());
    let maker_of = Object::List(maker_of.iter().map(|place| Object::Integer(i64::from(*place))).collect());
    let repeated = Object::call("itertools", "repeat", vec![makers]);
    let workers = Object::call("builtins", "map", vec![Object::Global("operator", "getitem"), repeated, maker_of]);
    let pairs = Object::call("builtins", "zip", vec![Object::List(partitions.collect()), workers]);
    Object::call("builtins", "dict", vec![pairs])
}
