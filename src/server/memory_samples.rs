//! Samples of the memory that all workers take together, for Clients that compare runs (`MemorySampler`).
//!
//! Source: distributed 2026.8.0, diagnostics/memory_sampler.py; scheduler.py: `MemoryState`, `heartbeat_worker`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::engine::ClientId;
use crate::server::clock::unix_seconds;
use crate::server::namespace::Namespace;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Those who sample at the same time.
const SAMPLERS_MAX: usize = 100;
/// Samples of one of them. With more, every second one is dropped, and half as many are taken from there on.
const SAMPLES_MAX: usize = 100_000;
const INTERVAL_SECONDS: std::ops::RangeInclusive<f64> = 0.01..=86_400.0;
const INTERVAL_SECONDS_DEFAULT: f64 = 0.5;
/// What is taken for longer than this is "old", as in Dask (`distributed.worker.memory.recent-to-old-time`).
const RECENT: Duration = Duration::from_secs(30);

/// What a worker's heartbeats say of its memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryReadings {
    process: u64,
    /// Of results that are on its disk: what they would take in memory, and what they take there.
    spilled: u64,
    on_disk: u64,
    /// What was no result's, of late: only readings that are less than all after them, so that the first is the least.
    unmanaged: VecDeque<(Instant, u64)>,
}

/// Bytes of one worker, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    process: u64,
    managed: u64,
    spilled: u64,
    unmanaged_old: u64,
}

/// What of it is sampled; the names are Dask's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Process,
    Managed,
    ManagedTotal,
    Spilled,
    Unmanaged,
    UnmanagedOld,
    UnmanagedRecent,
    Optimistic,
}

/// Those who sample, by the name they were given.
#[derive(Debug, Default)]
pub(crate) struct Samplers {
    entries: BTreeMap<String, Sampler>,
    begun: u64,
}

#[derive(Debug)]
struct Sampler {
    client: ClientId,
    measure: Measure,
    interval: Duration,
    due: Instant,
    /// Each with its time, in seconds since 1970.
    samples: Vec<(f64, u64)>,
}

impl MemoryReadings {
    /// Takes in what a worker measured, which holds so many bytes of results.
    pub(crate) fn take_in(&mut self, metrics: &Bytes, nbytes: u64, now: Instant) {
        let metrics = Value::from_msgpack(metrics).unwrap_or(Value::Nil);
        let bytes = |value: Option<&Value>| value.and_then(Value::as_integer).unwrap_or_default().max(0) as u64;
        let spilled = metrics.get("spilled_bytes");
        self.process = bytes(metrics.get("memory"));
        self.spilled = bytes(spilled.and_then(|spilled| spilled.get("memory")));
        self.on_disk = bytes(spilled.and_then(|spilled| spilled.get("disk")));
        let unmanaged = (self.process + self.spilled).saturating_sub(nbytes);
        while self.unmanaged.back().is_some_and(|(_, least)| *least >= unmanaged) {
            self.unmanaged.pop_back();
        }
        self.unmanaged.push_back((now, unmanaged));
        while self.unmanaged.front().is_some_and(|(since, _)| now - *since > RECENT) {
            self.unmanaged.pop_front();
        }
    }

    /// How it stands with a worker that holds so many bytes of results now.
    fn memory(&self, nbytes: u64) -> Memory {
        let managed = nbytes.saturating_sub(self.spilled).min(self.process);
        let unmanaged_old = self.unmanaged.front().map_or(0, |(_, least)| *least);
        Memory { process: self.process, managed, spilled: self.on_disk, unmanaged_old: unmanaged_old.min(self.process - managed) }
    }
}

impl Memory {
    fn plus(self, other: Self) -> Self {
        Self {
            process: self.process + other.process,
            managed: self.managed + other.managed,
            spilled: self.spilled + other.spilled,
            unmanaged_old: self.unmanaged_old + other.unmanaged_old,
        }
    }

    fn get(self, measure: Measure) -> u64 {
        match measure {
            Measure::Process => self.process,
            Measure::Managed => self.managed,
            Measure::ManagedTotal => self.managed + self.spilled,
            Measure::Spilled => self.spilled,
            Measure::Unmanaged => self.process - self.managed,
            Measure::UnmanagedOld => self.unmanaged_old,
            Measure::UnmanagedRecent => self.process - self.managed - self.unmanaged_old,
            Measure::Optimistic => self.managed + self.unmanaged_old,
        }
    }
}

impl Measure {
    const ALL: [(&str, Self); 8] = [
        ("process", Self::Process),
        ("managed", Self::Managed),
        ("managed_total", Self::ManagedTotal),
        ("spilled", Self::Spilled),
        ("unmanaged", Self::Unmanaged),
        ("unmanaged_old", Self::UnmanagedOld),
        ("unmanaged_recent", Self::UnmanagedRecent),
        ("optimistic", Self::Optimistic),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, measure)| *measure)
    }
}

impl Sampler {
    fn add(&mut self, time: f64, bytes: u64, now: Instant) {
        self.samples.push((time, bytes));
        if self.samples.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2;
        }
        self.due = now + self.interval;
    }
}

impl Samplers {
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.entries.values().map(|sampler| sampler.due).min()
    }

    /// A Client has left.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.entries.retain(|_, sampler| sampler.client != client);
    }
}

impl Namespace {
    /// The RPC `memory_sampler_start`; gives the name under which the samples are fetched.
    pub(crate) fn start_memory_sampler(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let (client, measure) = (fields.text("client")?, fields.text("measure")?);
        let seconds = fields.optional_number("interval")?.unwrap_or(INTERVAL_SECONDS_DEFAULT);
        let refuse = |text: String| Ok(rpc::failed(&Object::value_error(&text), &text));
        let Some(measure) = Measure::parse(measure) else {
            let names = Measure::ALL.map(|(name, _)| name).join(", ");
            return refuse(format!("`{measure}` is no measure of memory; there are {names}"));
        };
        let Some(client) = self.clients.by_name(client) else {
            return refuse(format!("the Client {client} is not connected"));
        };
        if self.samplers.entries.len() >= SAMPLERS_MAX {
            return refuse(format!("{SAMPLERS_MAX} others sample the memory of the workers at this time"));
        }
        let interval = Duration::from_secs_f64(seconds.clamp(*INTERVAL_SECONDS.start(), *INTERVAL_SECONDS.end()));
        self.samplers.begun += 1;
        let name = format!("memory-sampler-{}", self.samplers.begun);
        let sampler = Sampler { client, measure, interval, due: Instant::now(), samples: Vec::new() };
        self.samplers.entries.insert(name.clone(), sampler);
        self.sample_memory_if_due();
        Ok(name.into())
    }

    /// The RPC `memory_sampler_stop`: all samples.
    pub(crate) fn stop_memory_sampler(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let name = fields.text("key")?;
        let Some(sampler) = self.samplers.entries.remove(name) else {
            let text = format!("nobody samples memory under the name {name}");
            return Ok(rpc::failed(&Object::key_error(&text), &text));
        };
        let samples = sampler.samples.into_iter();
        Ok(Value::Array(samples.map(|(time, bytes)| Value::Array(vec![time.into(), bytes.into()])).collect()))
    }

    /// Takes the samples whose time has come.
    pub(crate) fn sample_memory_if_due(&mut self) {
        let now = Instant::now();
        if self.samplers.next_due().is_none_or(|due| due > now) {
            return;
        }
        let readings = self.engine.workers().filter_map(|worker| Some((self.workers.get(worker.id)?, worker.nbytes)));
        let each = readings.map(|(worker, nbytes)| worker.memory.memory(nbytes));
        let (memory, time) = (each.fold(Memory::default(), Memory::plus), unix_seconds());
        for sampler in self.samplers.entries.values_mut().filter(|sampler| sampler.due <= now) {
            sampler.add(time, memory.get(sampler.measure), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(memory: u64, spilled: u64, on_disk: u64) -> Bytes {
        let spilled = Value::map([("memory", spilled.into()), ("disk", on_disk.into())]);
        Value::map([("memory", memory.into()), ("spilled_bytes", spilled)]).to_msgpack().into()
    }

    #[test]
    fn measures_add_up_whatever_workers_say() {
        let (mut readings, now) = (MemoryReadings::default(), Instant::now());
        readings.take_in(&metrics(100, 0, 0), 0, now);
        readings.take_in(&metrics(150, 20, 5), 60, now + RECENT / 2);
        // Of what it holds 20 are on disk, so 40 of 150 are in memory; 100 were no result's, and 110 are now.
        let memory = readings.memory(60);
        assert_eq!(memory, Memory { process: 150, managed: 40, spilled: 5, unmanaged_old: 100 });
        let found = Measure::ALL.map(|(_, measure)| memory.get(measure));
        assert_eq!(found, [150, 40, 45, 5, 110, 100, 10, 140]);
        // What is not said yet by a heartbeat cannot be more than there is.
        assert_eq!(readings.memory(1000), Memory { process: 150, managed: 150, spilled: 5, unmanaged_old: 0 });
        // The first reading is not of late any more.
        readings.take_in(&metrics(150, 20, 5), 60, now + RECENT * 3 / 2);
        assert_eq!(readings.memory(60).get(Measure::UnmanagedOld), 110);
        assert_eq!(MemoryReadings::default().memory(10), Memory::default());
    }

    #[test]
    fn a_long_time_is_sampled_less_often() {
        let now = Instant::now();
        let interval = Duration::from_secs(1);
        let mut sampler = Sampler { client: ClientId(0), measure: Measure::Process, interval, due: now, samples: Vec::new() };
        for index in 0..SAMPLES_MAX as u64 {
            sampler.add(index as f64, index, now);
        }
        assert_eq!((sampler.samples.len(), sampler.interval), (SAMPLES_MAX / 2, 2 * interval));
        assert_eq!((sampler.samples[1], sampler.due), ((2.0, 2), now + 2 * interval));
    }
}
