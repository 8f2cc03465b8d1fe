//! The message that workers are sent most: run a task.

use super::to_worker::Replica;
use crate::dask::{Priority, RunSpec, TaskKey, WorkerAddress};
use crate::wire::encode::{Encode, Encoder};
use crate::wire::value::Value;

/// Run a task. For tests and whatever else holds one; it is sent as [`ComputeTaskView`].
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeTask {
    pub key: TaskKey,
    pub run_id: u64,
    pub dependencies: Vec<Replica>,
    pub priority: Priority,
    pub run_spec: RunSpec,
    pub resource_restrictions: Vec<(String, f64)>,
    pub actor: bool,
    pub annotations: Value,
    pub span_id: Option<String>,
    pub stimulus_id: String,
}

/// Run a task: what the message says, wherever that is kept, so that nothing is copied on its way.
#[derive(Clone, Debug)]
pub struct ComputeTaskView<'a, Dependencies, Resources> {
    pub key: &'a TaskKey,
    pub run_id: u64,
    /// Exactly the dependencies that the run spec names: each with its size and who holds it, at least one.
    pub dependencies: Dependencies,
    pub priority: Priority,
    pub run_spec: &'a RunSpec,
    /// What is to be imported before; a worker has to be told once.
    pub imports: Option<&'a str>,
    /// Only names that the worker itself declared: others make it exit.
    pub resource_restrictions: Resources,
    pub actor: bool,
    /// A map; the worker reads `executor` and `span` of it.
    pub annotations: &'a Value,
    pub span_id: Option<&'a str>,
    pub stimulus_id: &'a str,
}

/// The fields after `run_spec` of a task about which nothing more is to be said: most are such.
const PLAIN_TAIL: &[u8] = b"\xb5resource_restrictions\xc0\xa5actor\xc2\xabannotations\x80\xa7span_id\xc0";

impl<'a, Dependencies, Holders, Resources> Encode for ComputeTaskView<'a, Dependencies, Resources>
where
    Dependencies: ExactSizeIterator<Item = (&'a TaskKey, u64, Holders)> + Clone,
    Holders: ExactSizeIterator<Item = &'a WorkerAddress>,
    Resources: Iterator<Item = (&'a str, f64)> + Clone,
{
    fn encode(&self, encoder: &mut Encoder) {
        encoder.encoded(b"\x8c\xa2op\xaccompute-task\xa3key");
        encoder.key(self.key);
        encoder.encoded(b"\xa6run_id");
        encoder.unsigned(self.run_id);
        encoder.encoded(b"\xa8priority\x93");
        // The worker's order is ascending, the user's is "higher runs first".
        encoder.number(-self.priority.user);
        encoder.number(self.priority.generation);
        encoder.integer(self.priority.order);
        encoder.encoded(b"\xabstimulus_id");
        encoder.text(self.stimulus_id);
        who_has_and_nbytes(encoder, self.dependencies.clone());
        encoder.encoded(b"\xa8run_spec");
        encoder.run_spec(self.run_spec, self.key, self.imports, self.dependencies.clone().map(|(key, ..)| key));
        let restrictions = self.resource_restrictions.clone().count();
        if restrictions == 0 && !self.actor && self.annotations.as_map().is_some_and(<[_]>::is_empty) && self.span_id.is_none() {
            return encoder.encoded(PLAIN_TAIL);
        }
        encoder.text("resource_restrictions");
        if restrictions == 0 {
            encoder.nil();
        } else {
            encoder.map(restrictions);
        }
        for (name, amount) in self.resource_restrictions.clone() {
            encoder.text(name);
            encoder.number(amount);
        }
        encoder.text("actor");
        encoder.boolean(self.actor);
        encoder.text("annotations");
        encoder.value(self.annotations);
        encoder.text("span_id");
        encoder.optional_text(self.span_id);
    }
}

impl Encode for ComputeTask {
    fn encode(&self, encoder: &mut Encoder) {
        let view = ComputeTaskView {
            key: &self.key,
            run_id: self.run_id,
            dependencies: self.dependencies.iter().map(|(key, nbytes, workers)| (key, *nbytes, workers.iter())),
            priority: self.priority,
            run_spec: &self.run_spec,
            imports: self.run_spec.imports().map(AsRef::as_ref),
            resource_restrictions: self.resource_restrictions.iter().map(|(name, amount)| (name.as_str(), *amount)),
            actor: self.actor,
            annotations: &self.annotations,
            span_id: self.span_id.as_deref(),
            stimulus_id: &self.stimulus_id,
        };
        view.encode(encoder);
    }
}

pub(super) fn who_has_and_nbytes<'a, Holders>(
    encoder: &mut Encoder,
    replicas: impl ExactSizeIterator<Item = (&'a TaskKey, u64, Holders)> + Clone,
) where
    Holders: ExactSizeIterator<Item = &'a WorkerAddress>,
{
    if replicas.len() == 0 {
        return encoder.encoded(b"\xa7who_has\x80\xa6nbytes\x80");
    }
    encoder.text("who_has");
    encoder.map(replicas.len());
    for (key, _, workers) in replicas.clone() {
        encoder.key(key);
        encoder.array(workers.len());
        workers.for_each(|worker| encoder.text(worker.as_str()));
    }
    encoder.text("nbytes");
    encoder.map(replicas.len());
    for (key, nbytes, _) in replicas {
        encoder.key(key);
        encoder.unsigned(nbytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{ComputeTask, PLAIN_TAIL};
    use crate::dask::{Priority, RunSpec, TaskKey};
    use crate::wire::encode::{Encode as _, Encoder};
    use crate::wire::value::Value;

    #[test]
    fn what_is_written_at_once_is_what_is_written_field_by_field() {
        let mut fields = Encoder::new();
        fields.text("resource_restrictions");
        fields.nil();
        fields.text("actor");
        fields.boolean(false);
        fields.text("annotations");
        fields.map(0);
        fields.text("span_id");
        fields.nil();
        assert_eq!(fields.into_document(), PLAIN_TAIL);

        let mut task = Encoder::new();
        let whole = ComputeTask {
            key: TaskKey::from_text("a"),
            run_id: 1,
            dependencies: Vec::new(),
            priority: Priority::new(0.0, 1.0, 2),
            run_spec: RunSpec::new(&b"pickle"[..]),
            resource_restrictions: Vec::new(),
            actor: false,
            annotations: Value::Map(Vec::new()),
            span_id: None,
            stimulus_id: "s".to_owned(),
        };
        whole.encode(&mut task);
        let document = task.into_document();
        let mut reader = crate::wire::msgpack::Reader::new(&document);
        assert_eq!(reader.map(), Ok(12));
        reader = crate::wire::msgpack::Reader::new(&document);
        assert_eq!(reader.skip(&mut 100), Ok(0..document.len()));
    }
}
