use super::*;
use crate::engine::Requirements;
use crate::server::build_request::{Actors, BuildRequest, Source};
use crate::server::inputs::WhyMissing;

fn versions(version: u64) -> Versions {
    Versions::from([("base".to_owned(), version)])
}

fn there(version: u64) -> Verdict {
    Verdict::There { versions: versions(version), unsettled: None }
}

fn soon_another(version: u64) -> Verdict {
    Verdict::There { versions: versions(version), unsettled: Some(missing(WhyMissing::NotBuilt)) }
}

fn missing(why: WhyMissing) -> MissingInput {
    MissingInput { collection: "a".to_owned(), output: "x".to_owned(), why }
}

fn gone() -> MissingInput {
    missing(WhyMissing::NoCollection { close: None })
}

fn cycle() -> Verdict {
    Verdict::Cycle(vec!["a".to_owned(), "b".to_owned()])
}

fn request(revision: &str) -> Arc<CollectionRequest> {
    let build = BuildRequest {
        name: "b".to_owned(),
        source: Source::Python { text: String::new() },
        parameters: serde_json::Map::new(),
        inputs: BTreeMap::new(),
        collections: Vec::new(),
        optimize_graph: true,
        optimize_options: serde_json::Map::new(),
        actors: Actors::default(),
    };
    Arc::new(CollectionRequest {
        uid: "b".to_owned(),
        name: "b".to_owned(),
        generation: 1,
        revision: revision.to_owned(),
        build: Arc::new(build),
        requirements: Requirements::default(),
        past: Past::default(),
    })
}

fn error() -> BuildError {
    BuildError { kind: "Raised".to_owned(), message: String::new(), traceback: None, line: None }
}

/// Drives one collection as its namespace does.
struct Told(Collection);

impl Told {
    fn new() -> Self {
        Self(Collection::new(request("1")))
    }

    /// One whose graph was made of version 1.
    fn accepted() -> Self {
        let mut told = Self::new();
        assert_eq!(told.hear(there(1)), "builds");
        told.accept();
        told
    }

    fn accept(&mut self) {
        let inputs = self.0.build.take().unwrap();
        self.0.stage = Stage::Accepted;
        let revision = self.0.request.revision.clone();
        let accepted =
            Accepted { revision, inputs, outputs: Vec::new(), names: BTreeMap::new(), document: String::new(), remade_at: None };
        self.0.accepted = Some(Box::new(accepted));
    }

    fn fail(&mut self) {
        let inputs = self.0.build.take().unwrap();
        self.0.fail(error(), inputs);
    }

    /// What it does when its inputs stand so: `builds`, or the stage in which it stays.
    fn hear(&mut self, verdict: Verdict) -> &'static str {
        let next = self.0.next(verdict);
        let (stage, word) = match next {
            Next::Build(versions) => {
                self.0.attempt += 1;
                self.0.build = Some(versions);
                (Stage::Building { worker: "w".to_owned() }, "builds")
            }
            Next::Resume => (Stage::Accepted, "resumes"),
            Next::Stay(stage) => {
                let word = match &stage {
                    Stage::Accepted => "accepted",
                    Stage::Building { .. } => "building",
                    Stage::BuildFailed(_) => "failed",
                    Stage::WaitingForInput(_) => "waits",
                    Stage::InputCycle { .. } => "cycle",
                    Stage::WaitingForTurn | Stage::WaitingForWorker { .. } => "other",
                };
                (stage, word)
            }
        };
        self.0.stage = stage;
        word
    }
}

#[test]
fn another_version_of_an_input_makes_the_graph_anew_once() {
    let mut told = Told::accepted();
    assert_eq!(told.hear(there(1)), "accepted");
    assert_eq!(told.hear(soon_another(1)), "accepted");
    assert_eq!(told.hear(there(2)), "builds");
    let attempt = told.0.attempt;
    assert_eq!(told.hear(there(2)), "building");
    assert_eq!(told.hear(soon_another(2)), "building");
    assert_eq!(told.0.attempt, attempt);
    told.accept();
    assert_eq!(told.hear(there(2)), "accepted");
}

#[test]
fn an_input_that_changes_while_it_is_built_begins_the_build_again() {
    let mut told = Told::new();
    assert_eq!(told.hear(there(1)), "builds");
    let attempt = told.0.attempt;
    assert_eq!(told.hear(there(2)), "builds");
    assert!(told.0.attempt > attempt, "the answer of the older build would count");
    assert_eq!(told.hear(Verdict::Missing(gone())), "waits");
    assert_eq!(told.0.build, None);
}

#[test]
fn what_is_there_stays_while_an_input_is_missing() {
    let mut told = Told::accepted();
    assert_eq!(told.hear(Verdict::Missing(gone())), "accepted");
    assert_eq!(told.0.report(None).missing_input, Some(gone()));
    // It came back as it was.
    assert_eq!(told.hear(there(1)), "accepted");
    assert_eq!(told.0.report(None).missing_input, None);
    // It came back as another.
    assert_eq!(told.hear(Verdict::Missing(gone())), "accepted");
    assert_eq!(told.hear(there(2)), "builds");
    assert_eq!(told.0.report(None).missing_input, None);
}

#[test]
fn a_new_revision_cannot_be_built_without_its_inputs() {
    let mut told = Told::accepted();
    told.0.request = request("2");
    told.0.wait();
    assert_eq!(told.hear(soon_another(1)), "waits");
    assert_eq!(told.hear(Verdict::Missing(gone())), "waits");
    // The edit is taken back: what is there is right again.
    told.0.request = request("1");
    told.0.wait();
    assert_eq!(told.hear(Verdict::Missing(gone())), "resumes");
    assert_eq!(told.hear(Verdict::Missing(gone())), "accepted");
}

#[test]
fn a_failed_build_is_tried_again_with_other_inputs_only() {
    let mut told = Told::new();
    assert_eq!(told.hear(there(1)), "builds");
    told.fail();
    assert_eq!(told.hear(there(1)), "failed");
    assert_eq!(told.hear(soon_another(2)), "failed");
    assert_eq!(told.hear(Verdict::Missing(gone())), "failed");
    assert_eq!(told.hear(there(2)), "builds");
    told.fail();
    assert_eq!(told.hear(there(2)), "failed");
}

#[test]
fn what_failed_on_another_version_goes_on_with_the_one_it_has() {
    let mut told = Told::accepted();
    assert_eq!(told.hear(there(2)), "builds");
    told.fail();
    assert_eq!(told.hear(there(2)), "failed");
    assert_eq!(told.hear(there(1)), "resumes");
}

#[test]
fn leaving_a_cycle_clears_it_at_once() {
    let mut told = Told::new();
    assert_eq!(told.hear(cycle()), "cycle");
    assert_eq!(told.hear(cycle()), "cycle");
    assert_eq!(told.hear(there(1)), "builds");
    assert_eq!(told.hear(cycle()), "cycle");
    assert_eq!(told.0.build, None);
    let mut told = Told::accepted();
    assert_eq!(told.hear(cycle()), "cycle");
    assert_eq!(told.hear(there(1)), "resumes");
}
