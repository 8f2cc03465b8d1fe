//! One look at one object: the steps in their order, and when to look again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use tokio::time::Instant;

use crate::api::PersistedCollection;
use crate::controller::dereference::{self, Kind};
use crate::controller::finalizer::{self, Release};
use crate::controller::memory::{Refused, Remembered, Validated};
use crate::controller::plan::{self, plan};
use crate::controller::status::{self, Situation, View};
use crate::controller::validate::{self, validate};
use crate::controller::{Context, Error, Identity, apply, events};
use crate::engine::Requirements;
use crate::pods::PodFacts;
use crate::server::{CollectionRequest, Report};

/// While the server has not answered, should its word be lost.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a namespace may be without a server before its collections say so: starting one takes less.
const SERVER_START_MAX: Duration = Duration::from_secs(10);

/// Brings one object a step further, if its namespace is ours. Gives after what time to look again, should nothing call for it before.
///
/// # Guarantees
/// Safe to call at any time and any number of times: without a change it makes no request.
///
/// # Errors
/// When the API server cannot be reached or refuses. What is wrong with the object is no error: its status says it.
pub async fn reconcile(collection: Arc<PersistedCollection>, context: Arc<Context>) -> Result<Option<Duration>, Error> {
    let identity = Identity::of(&collection)?;
    match context.servers.fence(&identity.namespace) {
        None => {
            // Whoever looks after it, all of its objects are looked at when we do.
            context.servers.want(&identity.namespace);
            return Ok(None);
        }
        // Nothing is written until it is known whether another looks after it.
        Some(fence) if !fence.is_open() => return Ok(Some(ANSWER)),
        Some(_) => {}
    }
    let remembered = context.memory.of(&identity);
    let mut remembered = remembered.lock().await;
    remembered.written.forget_what_shows(&collection);
    if let Some(wait) = remembered.refused.as_ref().and_then(|refused| refused.wait(&collection)) {
        return Ok(Some(wait));
    }
    remembered.refused = None;
    let look = Look {
        api: Api::namespaced(context.client.clone(), &identity.namespace),
        context: &context,
        identity: &identity,
        remembered: &mut remembered,
    };
    let looked = if collection.metadata.deletion_timestamp.is_some() {
        look.release(&collection).await
    } else {
        look.keep(&collection).await
    };
    match &looked {
        Ok(_) => context.memory.succeeded(&identity.uid),
        Err(error) if error.is_race() => remembered.refused = Refused::of(&collection),
        Err(_) => {}
    }
    looked
}

struct Look<'a> {
    api: Api<PersistedCollection>,
    context: &'a Context,
    identity: &'a Identity,
    remembered: &'a mut Remembered,
}

/// Whether a status was written, and if not, whether it should be.
enum Shown {
    Unchanged,
    Written(Box<PersistedCollection>),
    /// The last write is too recent.
    Later(Duration),
}

impl Look<'_> {
    async fn keep(mut self, collection: &PersistedCollection) -> Result<Option<Duration>, Error> {
        let identity = self.identity;
        let reference = dereference::reference_of(&collection.spec.source);
        let is_confidential = reference.as_ref().is_some_and(|reference| reference.kind == Kind::Secret);
        let mut look_again = None;
        let mut text = None;
        if let Some(reference) = reference {
            let fetched = &mut self.remembered.fetched;
            look_again = Some(dereference::refresh(&self.context.client, &identity.namespace, reference, fetched).await?);
            match fetched.as_ref().map(|fetched| fetched.text.clone()) {
                Some(Err(absence)) => {
                    let shown = self.show(collection, Situation::SourceAbsent(&absence), is_confidential, None).await?;
                    return Ok(shown.no_later_than(look_again));
                }
                found => text = found.and_then(Result::ok),
            }
        }
        let request = match self.validated(collection, text) {
            Ok(request) => request,
            Err(error) => {
                let shown = self.show(collection, Situation::Invalid(&error), is_confidential, None).await?;
                return Ok(shown.no_later_than(look_again));
            }
        };
        let Some(server) = self.context.servers.find(&identity.namespace) else {
            self.take(collection, is_confidential).await?;
            return self.await_server(collection, is_confidential).await;
        };
        self.remembered.without_server_since = None;
        // Before anything is written of it: each write takes as long as many tasks.
        let report = apply::apply(&server, &request, &mut self.remembered.applied);
        let taken = self.take(collection, is_confidential).await;
        if !self.context.memory.knows(&identity.uid) || taken.as_ref().is_err_and(Error::is_gone) {
            // It went meanwhile, and nobody will tell of it again.
            server.remove(&identity.uid);
            self.remembered.applied = None;
        }
        taken?;
        let Some(report) = report else {
            return Ok(Some(look_again.map_or(ANSWER, |pause| pause.min(ANSWER))));
        };
        let answer = Answer { report: &report, requirements: &request.requirements };
        let shown = self.show(collection, Situation::Reported, is_confidential, Some(answer)).await?;
        Ok(shown.no_later_than(look_again))
    }

    async fn release(mut self, collection: &PersistedCollection) -> Result<Option<Duration>, Error> {
        let server = self.context.servers.find(&self.identity.namespace);
        if !finalizer::has_finalizer(collection) {
            if let Some(server) = server {
                server.remove(&self.identity.uid);
            }
            self.context.memory.forget(&self.identity.uid);
            return Ok(None);
        }
        match finalizer::release(server.as_ref(), &self.identity.uid, &mut self.remembered.releasing_since) {
            Release::Waiting { look_again } => {
                let shown = self.show(collection, Situation::Releasing, false, None).await?;
                Ok(shown.no_later_than(Some(look_again)))
            }
            Release::Done { timed_out } => {
                if timed_out {
                    tracing::warn!(
                        namespace = self.identity.namespace,
                        name = self.identity.name,
                        "the scheduler did not confirm a release in time"
                    );
                }
                finalizer::remove(&self.api, self.identity, collection).await?;
                if self.remembered.releasing_since.is_some() {
                    events::publish(&self.context.recorder, collection, vec![events::released(timed_out)]).await;
                }
                self.context.memory.forget(&self.identity.uid);
                Ok(None)
            }
        }
    }

    /// What to ask the server for, by this generation and this text.
    fn validated(
        &mut self,
        collection: &PersistedCollection,
        text: Option<String>,
    ) -> Result<Arc<CollectionRequest>, Box<validate::Error>> {
        let Identity { name, uid, generation, .. } = self.identity;
        let Remembered { validated, past, written, .. } = &mut *self.remembered;
        if let Some(known) = validated.as_ref().filter(|known| known.generation == *generation && known.text == text) {
            return known.outcome.clone();
        }
        let outcome = validate(name, &collection.spec, text.clone()).map_err(Box::new).map(|validated| {
            let past = past.get_or_insert_with(|| plan::past(written.newest(collection), *generation));
            Arc::new(plan(uid, *generation, validated, past.clone()))
        });
        *validated = Some(Validated { generation: *generation, text, outcome: outcome.clone() });
        outcome
    }

    /// The first acts on a new object: to say that it is worked on, and to hold it until its memory is freed.
    async fn take(&mut self, collection: &PersistedCollection, is_confidential: bool) -> Result<(), Error> {
        let mut newest = None;
        if self.remembered.written.newest(collection).is_none()
            && let Shown::Written(stored) = self.show(collection, Situation::Taken, is_confidential, None).await?
        {
            newest = Some(stored);
        }
        let newest = newest.as_deref().unwrap_or(collection);
        if !finalizer::has_finalizer(newest) {
            finalizer::add(&self.api, self.identity, newest).await?;
        }
        Ok(())
    }

    async fn await_server(&mut self, collection: &PersistedCollection, is_confidential: bool) -> Result<Option<Duration>, Error> {
        self.context.servers.want(&self.identity.namespace);
        let since = *self.remembered.without_server_since.get_or_insert_with(Instant::now);
        if since.elapsed() < SERVER_START_MAX {
            return Ok(Some(ANSWER));
        }
        let shown = self.show(collection, Situation::NoScheduler, is_confidential, None).await?;
        Ok(shown.no_later_than(Some(SERVER_START_MAX)))
    }

    /// Writes the status that a situation calls for, if it says anything else than before and it is time.
    async fn show(
        &mut self,
        collection: &PersistedCollection,
        situation: Situation<'_>,
        is_confidential: bool,
        answer: Option<Answer<'_>>,
    ) -> Result<Shown, Error> {
        let identity = self.identity;
        // Before the spec is taken, what the server still keeps of the last one is the best that is known.
        let kept = self.context.servers.find(&identity.namespace).and_then(|server| server.report(&identity.uid));
        let report = answer.map(|answer| answer.report).or(kept.as_deref());
        let pods = if report.is_some_and(wants_pods) { self.pods() } else { Vec::new() };
        let view = View {
            generation: identity.generation,
            situation,
            report,
            is_confidential,
            requirements: answer.map(|answer| answer.requirements),
            pods: &pods,
        };
        let previous = self.remembered.written.newest(collection).cloned();
        let status = status::compute(previous.as_ref(), &view, Timestamp::now());
        if previous.as_ref() == Some(&status) {
            return Ok(Shown::Unchanged);
        }
        let pause = self.remembered.written.pause().filter(|_| !*self.context.ending.borrow());
        if let Some(pause) = pause {
            return Ok(Shown::Later(pause));
        }
        let stored = status::write(&self.api, identity, collection, &status, &mut self.remembered.written).await?;
        events::publish(&self.context.recorder, collection, events::notes(previous.as_ref(), &status)).await;
        Ok(Shown::Written(Box::new(stored)))
    }

    fn pods(&self) -> Vec<PodFacts> {
        let index = self.context.pods.read().unwrap_or_else(PoisonError::into_inner);
        index.pods_of(&self.identity.namespace).cloned().collect()
    }
}

/// Whether pods may explain what a report says. Most say nothing that needs it, and a namespace may have many pods.
fn wants_pods(report: &Report) -> bool {
    report.summary.is_none() || report.lacks_workers()
}

/// The server's word, and what it was asked for.
#[derive(Clone, Copy)]
struct Answer<'a> {
    report: &'a Report,
    requirements: &'a Requirements,
}

impl Shown {
    fn no_later_than(&self, look_again: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Later(pause) => Some(look_again.map_or(*pause, |look_again| look_again.min(*pause))),
            Self::Unchanged | Self::Written(_) => look_again,
        }
    }
}
