//! The types of results, each held once.

use bytes::Bytes;
use indexmap::IndexSet;

/// Results of further types are known without their type.
const TYPES_MAX: usize = 10_000;

/// The place of a type in the `TypeTable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(u32);

/// The pickles of types as workers sent them; the first is empty and stands for "not known".
#[derive(Debug)]
pub(super) struct TypeTable(IndexSet<Bytes>);

impl Default for TypeTable {
    fn default() -> Self {
        Self(IndexSet::from([Bytes::new()]))
    }
}

impl TypeTable {
    pub(super) fn intern(&mut self, pickle: Bytes) -> TypeId {
        if self.0.len() >= TYPES_MAX {
            return TypeId(self.0.get_index_of(&pickle).unwrap_or_default() as u32);
        }
        TypeId(self.0.insert_full(pickle).0 as u32)
    }

    pub(super) fn pickle(&self, id: TypeId) -> Bytes {
        self.0.get_index(id.0 as usize).cloned().unwrap_or_default()
    }
}
