//! Stands in for a server where only its handle matters: in the tests of those who use one.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;

use crate::server::handle::{CollectionRequest, Command, Handle, Report, Reports};

/// What a server is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Apply(Arc<CollectionRequest>),
    Remove { uid: String },
    WorkersChanged,
    AllApplied,
}

/// Takes what its handle sends, and publishes the reports that it is given.
#[derive(Debug)]
pub struct StandIn {
    commands: mpsc::UnboundedReceiver<Command>,
    reports: Reports,
}

impl StandIn {
    /// A handle, and what is behind it.
    pub fn new() -> (Handle, Self) {
        let (commands, commanded) = mpsc::unbounded_channel();
        let reports = Reports::default();
        (Handle { commands, reports: Arc::clone(&reports) }, Self { commands: commanded, reports })
    }

    /// What was asked for since the last call.
    pub fn asked(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            asked.push(match command {
                Command::Apply(request) => Asked::Apply(request),
                Command::Remove { uid } => Asked::Remove { uid },
                Command::WorkersChanged => Asked::WorkersChanged,
                Command::AllApplied => Asked::AllApplied,
            });
        }
        asked
    }

    /// The same in words: `apply UID GENERATION`, `remove UID`, `workers changed`, `all applied`.
    pub fn taken(&mut self) -> Vec<String> {
        let show = |asked: Asked| match asked {
            Asked::Apply(request) => format!("apply {} {}", request.uid, request.generation),
            Asked::Remove { uid } => format!("remove {uid}"),
            Asked::WorkersChanged => "workers changed".to_owned(),
            Asked::AllApplied => "all applied".to_owned(),
        };
        self.asked().into_iter().map(show).collect()
    }

    /// Reports on a collection.
    pub fn publish(&self, uid: &str, report: Report) {
        self.reports.write().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), Arc::new(report));
    }

    /// Is done with a collection.
    pub fn withdraw(&self, uid: &str) {
        self.reports.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
