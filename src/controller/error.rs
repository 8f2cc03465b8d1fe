//! Why one reconciliation could not be carried through.
//!
//! Not for what is wrong with an object: that is no error, it is what its status says.

use thiserror::Error as ThisError;

/// Why an object was not reconciled; it is tried again.
#[derive(Debug, ThisError)]
pub enum Error {
    /// No API server sends such an object.
    #[error("the object has no {field} in its metadata")]
    Metadata { field: &'static str },
    #[error("failed to write the status")]
    WriteStatus(#[source] kube::Error),
    #[error("failed to change the finalizers")]
    ChangeFinalizers(#[source] kube::Error),
    #[error("failed to read {what}")]
    ReadSource { what: String, source: kube::Error },
}

impl Error {
    /// A word for logs and metric labels, out of few.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "Metadata",
            Self::WriteStatus(_) => "WriteStatus",
            Self::ChangeFinalizers(_) => "ChangeFinalizers",
            Self::ReadSource { .. } => "ReadSource",
        }
    }

    /// Whether trying again may help without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Metadata { .. } => false,
            Self::WriteStatus(_) | Self::ChangeFinalizers(_) | Self::ReadSource { .. } => true,
        }
    }

    /// The error with its causes on one line.
    pub fn message(&self) -> String {
        crate::error::chain(self)
    }

    /// Somebody else changed the object meanwhile, or it is gone: the next look at it settles this.
    pub(super) fn is_race(&self) -> bool {
        self.is_gone() || self.refusal_of_write().is_some_and(is_conflict)
    }

    /// There is no such object.
    pub(super) fn is_gone(&self) -> bool {
        self.refusal_of_write().is_some_and(is_gone)
    }

    fn refusal_of_write(&self) -> Option<&kube::Error> {
        match self {
            Self::WriteStatus(source) | Self::ChangeFinalizers(source) => Some(source),
            Self::Metadata { .. } | Self::ReadSource { .. } => None,
        }
    }
}

pub(super) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

pub(super) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
