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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_beyond_the_limit_are_not_known() {
        let mut types = TypeTable::default();
        let first = types.intern(Bytes::from_static(b"first"));
        for number in 0..TYPES_MAX {
            types.intern(Bytes::from(number.to_string()));
        }
        let late = types.intern(Bytes::from_static(b"late"));
        assert_eq!(types.pickle(late), Bytes::new());
        assert_eq!(types.intern(Bytes::from_static(b"first")), first);
        assert_eq!(types.pickle(first), Bytes::from_static(b"first"));
    }
}
