//! One run of a shuffle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dask::{Partition, ShuffleId, ShuffleSpec, TaskKey, WorkerAddress};

/// One attempt at a shuffle: who makes what does not change in it.
#[derive(Debug)]
pub struct Run {
    number: u64,
    spec: Arc<ShuffleSpec>,
    /// All and only workers that make something.
    makers: Vec<WorkerAddress>,
    /// For each partition the place of its worker in `makers`.
    maker_of: Vec<u32>,
    /// All workers that may have data of this run: those that make something, and those that asked for it.
    participants: BTreeSet<WorkerAddress>,
}

impl Run {
    /// Gives each partition to the worker it is `fixed` to, the others in ranges to `workers`, of which there is one at least.
    pub(super) fn new(
        number: u64,
        spec: Arc<ShuffleSpec>,
        workers: Vec<WorkerAddress>,
        fixed: &BTreeMap<&Partition, &WorkerAddress>,
        asker: &WorkerAddress,
    ) -> Self {
        let count = spec.partitions.len();
        let mut makers: Vec<WorkerAddress> = Vec::new();
        let mut places: BTreeMap<&WorkerAddress, u32> = BTreeMap::new();
        let mut maker_of = Vec::with_capacity(count);
        for (index, partition) in spec.partitions.iter().enumerate() {
            let worker = fixed.get(partition).copied().unwrap_or(&workers[workers.len() * index / count]);
            let place = *places.entry(worker).or_insert_with(|| {
                makers.push(worker.clone());
                makers.len() as u32 - 1
            });
            maker_of.push(place);
        }
        let participants = makers.iter().chain([asker]).cloned().collect();
        Self { number, spec, makers, maker_of, participants }
    }

    /// Larger than that of every run before, of whatever shuffle.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn id(&self) -> &ShuffleId {
        &self.spec.id
    }

    pub fn spec(&self) -> &ShuffleSpec {
        &self.spec
    }

    pub fn participants(&self) -> impl Iterator<Item = &WorkerAddress> {
        self.participants.iter()
    }

    pub fn makers(&self) -> &[WorkerAddress] {
        &self.makers
    }

    /// For each partition the place of its worker in `makers`.
    pub fn maker_of(&self) -> &[u32] {
        &self.maker_of
    }

    /// Which worker makes which partition.
    pub fn worker_for(&self) -> impl Iterator<Item = (&Partition, &WorkerAddress)> {
        self.spec.partitions.iter().zip(self.maker_of.iter().map(|place| &self.makers[*place as usize]))
    }

    /// Where tasks that take a partition find it, as far as the graph shows which do.
    pub fn places_of_outputs(&self) -> impl Iterator<Item = (&TaskKey, &WorkerAddress)> {
        self.spec.outputs.iter().filter_map(|(key, partition)| {
            let place = *self.maker_of.get(*partition as usize)?;
            Some((key, &self.makers[place as usize]))
        })
    }

    pub(super) fn admit(&mut self, worker: &WorkerAddress) {
        self.participants.insert(worker.clone());
    }

    pub(super) fn has(&self, worker: &WorkerAddress) -> bool {
        self.participants.contains(worker)
    }
}
