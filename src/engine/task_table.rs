//! All tasks, and the dense ids that stand for their keys.

use std::collections::BTreeSet;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use crate::dask::TaskKey;
use crate::engine::task::Task;

/// The place of a task in the `TaskTable`; given again once the task is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TaskId(u32);

impl TaskId {
    /// How many bits are enough for every id.
    pub(super) const BITS: u32 = 24;
    /// How many tasks there can be at once.
    pub(super) const COUNT: usize = 1 << Self::BITS;

    /// The id of these bits, which may be that of no task.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    fn place(self) -> (usize, usize) {
        (self.0 as usize / CHUNK_TASKS, self.0 as usize % CHUNK_TASKS)
    }
}

/// Most tasks have few neighbours: four fit without an allocation.
pub(super) type TaskList = SmallVec<[TaskId; 4]>;

/// Tasks are stored in chunks of so many: growing moves nothing, and a chunk goes with its last task.
const CHUNK_TASKS: usize = 1024;

/// Keys are spread over so many tables, each of which grows by itself: one for all would stop everything while it does.
const SHARDS: usize = 256;

/// All tasks, by dense id and by key.
#[derive(Debug)]
pub(super) struct TaskTable {
    chunks: Vec<Chunk>,
    /// All and only chunks with a vacant slot.
    with_room: BTreeSet<usize>,
    /// Never iterated: their order would leak into decisions.
    shards: Vec<HashTable<TaskId>>,
    len: usize,
    /// For how many more a table makes room when it grows.
    expected: usize,
}

#[derive(Debug, Default)]
struct Chunk {
    slots: Vec<Option<Task>>,
    /// Empty slots, the last freed is the first taken.
    vacant: Vec<u32>,
}

impl Default for TaskTable {
    fn default() -> Self {
        let shards = std::iter::repeat_with(HashTable::new).take(SHARDS).collect();
        Self { chunks: Vec::new(), with_room: BTreeSet::new(), shards, len: 0, expected: 0 }
    }
}

impl TaskTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn id(&self, key: &TaskKey) -> Option<TaskId> {
        let hash = hash(key);
        self.shards[shard(hash)].find(hash, |id| self[*id].key == *key).copied()
    }

    pub(super) fn get(&self, id: TaskId) -> Option<&Task> {
        let (chunk, slot) = id.place();
        self.chunks.get(chunk)?.slots.get(slot)?.as_ref()
    }

    /// Says how many more are about to come.
    pub(super) fn expect(&mut self, additional: usize) {
        // Hashes are not spread quite evenly.
        self.expected = additional / SHARDS + additional / SHARDS / 8;
    }

    /// The task of a key, and whether it is new.
    pub(super) fn id_or_insert(&mut self, key: &TaskKey, make: impl FnOnce() -> Task) -> (TaskId, bool) {
        let hash = hash(key);
        let chunks = &self.chunks;
        let table = &mut self.shards[shard(hash)];
        if let Some(id) = table.find(hash, |id| record(chunks, *id).is_some_and(|task| task.key == *key)) {
            return (*id, false);
        }
        if table.len() == table.capacity() {
            table.reserve(self.expected.max(1), |id| record(chunks, *id).map_or(0, |task| self::hash(&task.key)));
        }
        let id = self.store(make());
        let chunks = &self.chunks;
        self.shards[shard(hash)].insert_unique(hash, id, |id| record(chunks, *id).map_or(0, |task| self::hash(&task.key)));
        self.len += 1;
        (id, true)
    }

    /// Puts a record where there is room.
    fn store(&mut self, task: Task) -> TaskId {
        let place = self.with_room.first().copied().unwrap_or_else(|| {
            self.chunks.push(Chunk::default());
            self.with_room.insert(self.chunks.len() - 1);
            self.chunks.len() - 1
        });
        let chunk = &mut self.chunks[place];
        let slot = match chunk.vacant.pop() {
            Some(slot) => {
                chunk.slots[slot as usize] = Some(task);
                slot as usize
            }
            None => {
                // All at once, so that records never move.
                chunk.slots.reserve_exact(CHUNK_TASKS - chunk.slots.len());
                chunk.slots.push(Some(task));
                chunk.slots.len() - 1
            }
        };
        if chunk.vacant.is_empty() && chunk.slots.len() == CHUNK_TASKS {
            self.with_room.remove(&place);
        }
        TaskId(u32::try_from(place * CHUNK_TASKS + slot).expect("`tasks_max` is below the number of ids"))
    }

    pub(super) fn remove(&mut self, id: TaskId) -> Task {
        let (place, slot) = id.place();
        let task = self.chunks[place].slots[slot].take().expect("a task that is removed exists");
        let hash = hash(&task.key);
        let table = &mut self.shards[shard(hash)];
        if let Ok(entry) = table.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
        if table.is_empty() {
            *table = HashTable::new();
        }
        self.len -= 1;
        let chunk = &mut self.chunks[place];
        chunk.vacant.push(slot as u32);
        if chunk.vacant.len() == chunk.slots.len() {
            *chunk = Chunk::default();
        }
        self.with_room.insert(place);
        if self.len == 0 {
            *self = Self::default();
        }
        task
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        let places = self.chunks.iter().enumerate();
        places.flat_map(|(place, chunk)| {
            let slots = chunk.slots.iter().enumerate();
            slots.filter_map(move |(slot, task)| Some((TaskId((place * CHUNK_TASKS + slot) as u32), task.as_ref()?)))
        })
    }
}

fn hash(key: &TaskKey) -> u64 {
    FxBuildHasher.hash_one(key)
}

/// Which table a hash belongs to; by other bits than those by which it finds its place there.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

fn record(chunks: &[Chunk], id: TaskId) -> Option<&Task> {
    let (chunk, slot) = id.place();
    chunks[chunk].slots[slot].as_ref()
}

/// For ids that an index of ours holds: those are of tasks that exist.
impl std::ops::Index<TaskId> for TaskTable {
    type Output = Task;

    fn index(&self, id: TaskId) -> &Task {
        let (chunk, slot) = id.place();
        self.chunks[chunk].slots[slot].as_ref().expect("an indexed task exists")
    }
}

impl std::ops::IndexMut<TaskId> for TaskTable {
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        let (chunk, slot) = id.place();
        self.chunks[chunk].slots[slot].as_mut().expect("an indexed task exists")
    }
}
