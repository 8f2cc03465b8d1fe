//! Who may want a key.

use crate::engine::{ClientId, CollectionId};

/// Somebody whose wish keeps a key in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Owner {
    Collection(CollectionId),
    Client(ClientId),
}
