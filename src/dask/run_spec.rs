//! How to run a task, which only workers understand.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// How to run a task: a pickle of a Dask graph node, in pieces that are put together when it is sent.
///
/// Mainstay never looks inside. A million of these exist: what they are made of is shared.
#[derive(Clone)]
pub struct RunSpec {
    pieces: Arc<RunSpecPieces>,
    form: u32,
    start: u32,
    length: u32,
}

/// What the run specs of one graph are made of.
#[derive(Debug)]
pub struct RunSpecPieces {
    /// Without any, a blob is a run spec already.
    pub forms: Vec<RunSpecForm>,
    /// All blobs; several tasks may have the same.
    pub blobs: Bytes,
}

/// What many run specs have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpecForm {
    pub wrapping: Wrapping,
    /// What each blob of this form begins with.
    pub head: Bytes,
    /// Python statements to be run where a worker decodes the first of them.
    pub imports: Option<Arc<str>>,
    /// How the blob knows the dependencies.
    pub names: DependencyNames,
}

/// What a worker is told to do with a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// Load it and call what it is, with `operator.call`.
    OperatorCall,
    /// The same with `dask.utils.apply`, on a Python that lacks the former.
    Apply,
    /// Call this pickled coroutine function with it.
    Coroutine { function: Bytes },
}

/// What stands for a dependency in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependencyNames {
    /// Its place among the dependencies.
    Numbers,
    Keys,
}

impl RunSpec {
    /// A run spec of one piece.
    pub fn new(pickle: impl Into<Bytes>) -> Self {
        let blobs = pickle.into();
        let length = blobs.len() as u32;
        Self { pieces: Arc::new(RunSpecPieces { forms: Vec::new(), blobs }), form: 0, start: 0, length }
    }

    /// One of a graph's; `None` when there are no such pieces.
    pub fn of(pieces: &Arc<RunSpecPieces>, form: u32, start: u32, length: u32) -> Option<Self> {
        pieces.forms.get(form as usize)?;
        pieces.blobs.get(start as usize..(start as usize).checked_add(length as usize)?)?;
        Some(Self { pieces: Arc::clone(pieces), form, start, length })
    }

    /// `None` when the blob is a run spec already.
    pub fn form(&self) -> Option<&RunSpecForm> {
        self.pieces.forms.get(self.form as usize)
    }

    /// Python statements to be run where a worker decodes it, the first time.
    pub fn imports(&self) -> Option<&Arc<str>> {
        self.form()?.imports.as_ref()
    }

    /// What comes after the form's head.
    pub fn blob(&self) -> &[u8] {
        &self.pieces.blobs[self.start as usize..][..self.length as usize]
    }

    /// The same, shared.
    pub fn shared_blob(&self) -> Bytes {
        self.pieces.blobs.slice_ref(self.blob())
    }
}

impl Wrapping {
    /// Whether the worker loads the blob, and not the function that is called with it.
    pub fn loads_blob(&self) -> bool {
        match self {
            Self::OperatorCall | Self::Apply => true,
            Self::Coroutine { .. } => false,
        }
    }
}

impl PartialEq for RunSpec {
    fn eq(&self, other: &Self) -> bool {
        self.blob() == other.blob() && self.form() == other.form()
    }
}

impl Eq for RunSpec {}

impl fmt::Debug for RunSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunSpec({} B)", self.form().map_or(0, |form| form.head.len()) + self.blob().len())
    }
}
