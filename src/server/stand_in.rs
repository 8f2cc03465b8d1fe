//! Stands in for a server where only its handle matters: in the tests of those who use one.

use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc;

use crate::server::handle::{Command, Handle, Report, Reports};

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

    /// What was asked for since the last call: `apply UID GENERATION`, `remove UID`, `workers changed`.
    pub fn taken(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        while let Ok(command) = self.commands.try_recv() {
            taken.push(match command {
                Command::Apply(request) => format!("apply {} {}", request.uid, request.generation),
                Command::Remove { uid } => format!("remove {uid}"),
                Command::WorkersChanged => "workers changed".to_owned(),
                Command::AllApplied => "all applied".to_owned(),
            });
        }
        taken
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
