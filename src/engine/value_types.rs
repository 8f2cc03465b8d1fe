//! The types of results, each held once.

use bytes::Bytes;
use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// Results of further types are known without their type.
const TYPES_MAX: usize = 10_000;

/// The place of a type in the `TypeTable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(u32);

/// The types of results.
#[derive(Debug)]
pub(super) struct TypeTable {
    /// Their pickles as workers sent them; the first is empty and stands for "not known".
    pickles: IndexSet<Bytes, FxBuildHasher>,
    /// The one that was named last: mostly it is the next as well.
    last: TypeId,
}

impl Default for TypeTable {
    fn default() -> Self {
        Self { pickles: IndexSet::from_iter([Bytes::new()]), last: TypeId(0) }
    }
}

impl TypeTable {
    pub(super) fn intern(&mut self, pickle: &[u8]) -> TypeId {
        if self.pickles.get_index(self.last.0 as usize).is_some_and(|last| *last == pickle) {
            return self.last;
        }
        let known = self.pickles.get_index_of(pickle);
        self.last = TypeId(known.unwrap_or_else(|| {
            if self.pickles.len() >= TYPES_MAX {
                return 0;
            }
            // The pickle may share the memory of the message that it came in.
            self.pickles.insert_full(Bytes::copy_from_slice(pickle)).0
        }) as u32);
        self.last
    }

    pub(super) fn pickle(&self, id: TypeId) -> Bytes {
        self.pickles.get_index(id.0 as usize).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_beyond_the_limit_are_not_known() {
        let mut types = TypeTable::default();
        let first = types.intern(b"first");
        for number in 0..TYPES_MAX {
            types.intern(number.to_string().as_bytes());
        }
        let late = types.intern(b"late");
        assert_eq!(types.pickle(late), Bytes::new());
        assert_eq!(types.intern(b"first"), first);
        assert_eq!(types.pickle(first), Bytes::from_static(b"first"));
    }
}
