//! Reads what `builder/serve.py` answers: a graph, or why there is none.
//!
//! The answer comes from a worker, where the source may have done anything; nothing in it is trusted.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::dask::{
    DependencyNames, KeyError, Partition, RunSpec, RunSpecForm, RunSpecPieces, Serialized, ShuffleId, ShuffleSpec, TaskKey,
    Wrapping,
};
use crate::engine::{
    Amount, AmountError, Annotations, Graph, GraphTask, LabelExpression, Operator, Resources, TaskNames, WorkerSelector,
};
use crate::server::builder::TASKS_A_GRAPH_MAX;
use crate::server::handle::BuildError;
use crate::wire::document::DocumentError;
use crate::wire::msgpack::{MsgpackError, Reader, Token};
use crate::wire::text::{exception_text, traceback_text};
use crate::wire::value::Value;

/// The only layout there is.
const VERSION: i64 = 3;
// Flags of tasks and of forms, as in `builder/document.py` and `builder/run_specs.py`.
const DATA_PRODUCER: u8 = 1;
const ACTOR: u8 = 2;
const KEYED: i64 = 1;
const COROUTINE: i64 = 2;
/// All values of a document, keys of maps included.
const ELEMENTS_MAX: usize = 100_000_000;

/// What a build gave.
#[derive(Debug)]
pub(crate) enum Built {
    Document(Box<BuildDocument>),
    /// `exception` is a pickle that a Client can raise.
    Failed {
        error: BuildError,
        exception: Option<Bytes>,
    },
}

/// A graph with what is to be kept of it.
#[derive(Debug)]
pub(crate) struct BuildDocument {
    pub(crate) graph: Graph,
    /// What a Client wants of the graph, as places in its keys.
    pub(crate) wanted: Vec<u32>,
    pub(crate) outputs: Vec<BuiltOutput>,
    pub(crate) shuffles: Vec<ShuffleSpec>,
}

/// One collection to be kept.
#[derive(Debug)]
pub(crate) struct BuiltOutput {
    pub(crate) name: String,
    /// `DataFrame`, `Array`, `int`, …
    pub(crate) type_name: String,
    pub(crate) keys: Vec<TaskKey>,
    /// The collection made of futures, as Clients get it.
    pub(crate) data: Serialized,
    /// Equal for outputs that are used in the same way: same type and structure, same keys. Pickles of equal collections differ.
    pub(crate) version: u64,
}

/// Why an answer is no document.
#[derive(Debug, Error)]
pub(crate) enum BuildDocumentError {
    #[error("the builder's answer is no msgpack document")]
    Msgpack(#[from] MsgpackError),
    #[error("the builder's answer is no msgpack document")]
    Document(#[from] DocumentError),
    #[error("the builder answers in version {found}, not {VERSION}")]
    Version { found: i64 },
    #[error("the builder's answer lacks `{field}`")]
    Missing { field: &'static str },
    #[error("the builder's answer has a wrong `{field}`")]
    Wrong { field: &'static str },
    #[error("the builder gave a bad key")]
    Key(#[from] KeyError),
    #[error("the builder gave more than {TASKS_A_GRAPH_MAX} tasks")]
    TooManyTasks,
    #[error("an annotation asks for a bad amount of `{resource}`")]
    Amount {
        resource: String,
        #[source]
        source: AmountError,
    },
    #[error("an annotation has a wrong `{field}`: {found}")]
    Annotation { field: &'static str, found: String },
}

type Result<T> = std::result::Result<T, BuildDocumentError>;

impl BuildDocument {
    /// Reads a whole answer.
    pub(crate) fn decode(document: Bytes) -> Result<Built> {
        let sections = Sections::of(&document)?;
        let version = sections.value("version")?.as_integer().unwrap_or_default();
        if version != VERSION {
            return Err(BuildDocumentError::Version { found: version });
        }
        if let Ok(error) = sections.value("error") {
            return Ok(failed(&error));
        }
        let keys = sections.keys()?;
        let annotations = annotations(&sections.value("annotation_table")?)?;
        let outputs = sections.outputs(&keys)?;
        let shuffles = sections.shuffles(&keys)?;
        let wanted: Vec<u32> = sections.numbers("wanted")?.collect();
        if wanted.iter().any(|place| *place as usize >= keys.len()) {
            return Err(BuildDocumentError::Wrong { field: "wanted" });
        }
        let graph = sections.graph(keys, annotations)?;
        Ok(Built::Document(Box::new(Self { graph, wanted, outputs, shuffles })))
    }
}

/// Where the document's fields are. Large ones are read in place, without a tree.
struct Sections<'d> {
    document: &'d Bytes,
    ranges: BTreeMap<&'d str, Range<usize>>,
}

impl<'d> Sections<'d> {
    fn of(document: &'d Bytes) -> Result<Self> {
        let mut reader = Reader::new(document);
        let mut elements_left = ELEMENTS_MAX;
        let mut ranges = BTreeMap::new();
        for _ in 0..reader.map()? {
            let Token::Text(name) = reader.token()? else { return Err(BuildDocumentError::Wrong { field: "field names" }) };
            ranges.insert(name, reader.skip(&mut elements_left)?);
        }
        reader.finish()?;
        Ok(Self { document, ranges })
    }

    fn slice(&self, field: &'static str) -> Result<Bytes> {
        let range = self.ranges.get(field).ok_or(BuildDocumentError::Missing { field })?;
        Ok(self.document.slice(range.clone()))
    }

    fn value(&self, field: &'static str) -> Result<Value> {
        Ok(Value::from_msgpack(&self.slice(field)?)?)
    }

    fn binary(&self, field: &'static str) -> Result<&'d [u8]> {
        let range = self.ranges.get(field).ok_or(BuildDocumentError::Missing { field })?;
        match Reader::new(&self.document[range.clone()]).token()? {
            Token::Binary(binary) => Ok(binary),
            _ => Err(BuildDocumentError::Wrong { field }),
        }
    }

    fn keys(&self) -> Result<Vec<TaskKey>> {
        // A copy, since tasks hold on to their keys, and the rest of the document would stay with them.
        let section = Bytes::copy_from_slice(&self.slice("keys")?);
        let mut reader = Reader::new(&section);
        let length = reader.array()?;
        let mut keys = Vec::with_capacity(reader.capacity(length).min(TASKS_A_GRAPH_MAX));
        let mut start = reader.position();
        for _ in 0..length {
            let (key, end) = TaskKey::at(&section, start)?;
            keys.push(key);
            start = end;
        }
        Ok(keys)
    }

    /// A field of little-endian numbers.
    fn column<const SIZE: usize>(&self, field: &'static str) -> Result<&'d [[u8; SIZE]]> {
        let (numbers, rest) = self.binary(field)?.as_chunks();
        if rest.is_empty() { Ok(numbers) } else { Err(BuildDocumentError::Wrong { field }) }
    }

    fn graph(&self, keys: Vec<TaskKey>, annotations: Vec<Annotations>) -> Result<Graph> {
        let wrong = || BuildDocumentError::Wrong { field: "tasks" };
        let count = self.value("tasks")?.as_integer().and_then(|count| usize::try_from(count).ok()).ok_or_else(wrong)?;
        if count > TASKS_A_GRAPH_MAX {
            return Err(BuildDocumentError::TooManyTasks);
        }
        let edges: Vec<u32> = self.numbers("dependencies")?.collect();
        if count > keys.len() || edges.iter().any(|place| *place as usize >= keys.len()) {
            return Err(wrong());
        }
        let pieces = Arc::new(self.run_spec_pieces()?);
        let mut forms = self.numbers("forms")?;
        let (mut starts, mut lengths) = (self.numbers("starts")?, self.numbers("lengths")?);
        let mut dependency_counts = self.numbers("dependency_counts")?;
        let mut annotation_places = self.numbers("annotations")?;
        let mut order = self.column("order")?.iter().map(|number| i64::from_le_bytes(*number));
        let mut flags = self.binary("flags")?.iter();
        let mut start = 0_u32;
        let task = |key: u32| -> Option<GraphTask> {
            let flags = flags.next()?;
            let end = start.checked_add(dependency_counts.next()?).filter(|end| *end as usize <= edges.len())?;
            let dependencies = std::mem::replace(&mut start, end)..end;
            let annotations = match annotation_places.next()? {
                0 => None,
                place => Some(place - 1).filter(|place| (*place as usize) < annotations.len()).map(Some)?,
            };
            Some(GraphTask {
                key,
                dependencies,
                order: order.next()?,
                data_producer: flags & DATA_PRODUCER != 0,
                actor: flags & ACTOR != 0,
                annotations,
                run_spec: RunSpec::of(&pieces, forms.next()?, starts.next()?, lengths.next()?)?,
            })
        };
        let tasks = (0..count as u32).map(task).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        if start as usize != edges.len() {
            return Err(BuildDocumentError::Wrong { field: "dependency_counts" });
        }
        let names = self.names(&keys)?;
        Ok(Graph { keys, tasks, edges, annotations, names })
    }

    /// A column of numbers of 32 bits.
    fn numbers(&self, field: &'static str) -> Result<impl Iterator<Item = u32> + 'd> {
        Ok(self.column(field)?.iter().map(|number| u32::from_le_bytes(*number)))
    }

    fn run_spec_pieces(&self) -> Result<RunSpecPieces> {
        let wrong = || BuildDocumentError::Wrong { field: "forms_table" };
        let call = match self.value("operator_call")?.as_boolean() {
            Some(true) => Wrapping::OperatorCall,
            _ => Wrapping::Apply,
        };
        let coroutine = match self.value("run_coroutine")? {
            Value::Binary(pickle) => Wrapping::Coroutine { function: Bytes::copy_from_slice(&pickle) },
            _ => call.clone(),
        };
        let form = |row: &Value| {
            let Some([flags, Value::Binary(head), imports]) = row.as_elements() else { return None };
            let flags = flags.as_integer()?;
            Some(RunSpecForm {
                wrapping: if flags & COROUTINE != 0 { coroutine.clone() } else { call.clone() },
                head: Bytes::copy_from_slice(head),
                imports: imports.as_text().map(Arc::from),
                names: if flags & KEYED != 0 { DependencyNames::Keys } else { DependencyNames::Numbers },
            })
        };
        let table = self.value("forms_table")?;
        let forms = table.as_elements().ok_or_else(wrong)?.iter().map(form).collect::<Option<Vec<_>>>();
        // A copy for the same reason as that of the keys.
        Ok(RunSpecPieces { forms: forms.ok_or_else(wrong)?, blobs: Bytes::copy_from_slice(self.binary("blobs")?) })
    }

    /// What the manifest calls the tasks.
    fn names(&self, keys: &[TaskKey]) -> Result<TaskNames> {
        let names = self.value("names")?;
        let names = names.as_elements().unwrap_or_default().iter().map(Value::as_text);
        Ok(keys.iter().zip(names).filter_map(|(key, name)| Some((key.clone(), Arc::from(name?)))).collect())
    }

    fn shuffles(&self, keys: &[TaskKey]) -> Result<Vec<ShuffleSpec>> {
        let section = self.slice("shuffles")?;
        let mut reader = Reader::new(&section);
        let mut elements_left = ELEMENTS_MAX;
        let mut shuffles = Vec::new();
        for _ in 0..reader.array()? {
            // A copy for the same reason as that of the keys.
            let shuffle = Bytes::copy_from_slice(&section[reader.skip(&mut elements_left)?]);
            shuffles.push(shuffle_of(&Sections::of(&shuffle)?, keys)?);
        }
        Ok(shuffles)
    }

    fn outputs(&self, keys: &[TaskKey]) -> Result<Vec<BuiltOutput>> {
        let section = self.slice("outputs")?;
        let mut reader = Reader::new(&section);
        let mut outputs = Vec::new();
        let mut elements_left = ELEMENTS_MAX;
        for _ in 0..reader.array()? {
            // A copy for the same reason as that of the keys.
            let output = Bytes::copy_from_slice(&section[reader.skip(&mut elements_left)?]);
            outputs.push(output_of(&Sections::of(&output)?, keys)?);
        }
        Ok(outputs)
    }
}

fn shuffle_of(sections: &Sections<'_>, keys: &[TaskKey]) -> Result<ShuffleSpec> {
    let wrong = || BuildDocumentError::Wrong { field: "shuffles" };
    let id = ShuffleId::new(sections.value("id")?.as_text().ok_or_else(wrong)?);
    let pickle = sections.document.slice_ref(sections.binary("spec")?);
    let numbers: Vec<i64> = sections.column("partitions")?.iter().map(|number| i64::from_le_bytes(*number)).collect();
    let partitions: Vec<Partition> = match sections.value("axes")? {
        Value::Nil => numbers.into_iter().map(Partition::Number).collect(),
        axes => {
            let axes = axes.as_integer().and_then(|axes| usize::try_from(axes).ok()).filter(|axes| *axes > 0);
            numbers.chunks(axes.ok_or_else(wrong)?).map(|place| Partition::Chunk(place.to_vec())).collect()
        }
    };
    let outputs = sections.numbers("outputs")?.zip(sections.numbers("places")?).map(|(key, place)| {
        let key = keys.get(key as usize).filter(|_| (place as usize) < partitions.len());
        key.map(|key| (key.clone(), place)).ok_or_else(wrong)
    });
    let outputs = outputs.collect::<Result<_>>()?;
    Ok(ShuffleSpec { id, pickle, partitions, outputs })
}

fn key_at(token: Token<'_>, keys: &[TaskKey]) -> Option<TaskKey> {
    let Token::Integer(index) = token else { return None };
    keys.get(usize::try_from(index).ok()?).cloned()
}

fn output_of(sections: &Sections<'_>, keys: &[TaskKey]) -> Result<BuiltOutput> {
    let wrong = || BuildDocumentError::Wrong { field: "outputs" };
    let text = |field| Ok::<_, BuildDocumentError>(sections.value(field)?.as_text().ok_or_else(wrong)?.to_owned());
    let positions = sections.slice("keys")?;
    let mut reader = Reader::new(&positions);
    let mut output_keys = Vec::new();
    for _ in 0..reader.array()? {
        output_keys.push(key_at(reader.token()?, keys).ok_or_else(wrong)?);
    }
    let frames_section = sections.slice("frames")?;
    let mut reader = Reader::new(&frames_section);
    let mut frames = Vec::new();
    for _ in 0..reader.array()? {
        let Token::Binary(frame) = reader.token()? else { return Err(wrong()) };
        frames.push(frames_section.slice_ref(frame));
    }
    let data = Serialized { header: header(&sections.value("header")?, frames.len()), frames };
    let (name, type_name) = (text("name")?, text("type")?);
    let structure = sections.value("structure")?;
    let mut hasher = DefaultHasher::new();
    (&type_name, structure.as_text(), &output_keys).hash(&mut hasher);
    Ok(BuiltOutput { name, type_name, keys: output_keys, data, version: hasher.finish() })
}

/// A value's header as it stands on the wire, where it must say how many frames follow.
fn header(header: &Value, frames: usize) -> Bytes {
    let mut entries = header.as_map().unwrap_or_default().to_vec();
    entries.retain(|(name, _)| name.as_text() != Some("num-sub-frames"));
    entries.push(("num-sub-frames".into(), (frames as u64).into()));
    Value::Map(entries).to_msgpack().into()
}

fn failed(error: &Value) -> Built {
    let text = |field| error.get(field).and_then(Value::as_text);
    let exception = match error.get("exception") {
        Some(Value::Binary(pickle)) => Some(pickle.clone()),
        _ => None,
    };
    let error = BuildError {
        kind: exception_text(text("kind").unwrap_or("Raised")),
        message: traceback_text(text("message").unwrap_or_default()),
        traceback: text("traceback").map(traceback_text),
        line: error.get("line").and_then(Value::as_integer).and_then(|line| u32::try_from(line).ok()),
    };
    Built::Failed { error, exception }
}

fn annotations(table: &Value) -> Result<Vec<Annotations>> {
    table.as_elements().unwrap_or_default().iter().map(annotation).collect()
}

fn annotation(entry: &Value) -> Result<Annotations> {
    let given = |field| entry.get(field).filter(|value| !value.is_nil());
    let wrong = |field, found: &Value| BuildDocumentError::Annotation { field, found: shown(found) };
    let retries = match given("retries") {
        None => None,
        Some(value) => {
            let retries = value.as_integer().and_then(|retries| u32::try_from(retries).ok());
            Some(retries.ok_or_else(|| wrong("retries", value))?)
        }
    };
    let priority = match given("priority") {
        None => None,
        Some(value) => Some(value.as_number().filter(|number| number.is_finite()).ok_or_else(|| wrong("priority", value))?),
    };
    Ok(Annotations {
        retries,
        priority,
        workers: given("workers").map(selector).transpose()?,
        allow_other_workers: given("allow_other_workers").and_then(Value::as_boolean),
        resources: given("resources").map(resources).transpose()?,
        executor: given("executor").and_then(Value::as_text).map(str::to_owned),
    })
}

/// Names of workers, or what `builder.rs` made of the selector of an inline task.
fn selector(value: &Value) -> Result<WorkerSelector> {
    let wrong = || BuildDocumentError::Annotation { field: "workers", found: shown(value) };
    if let Some(name) = value.as_text() {
        return Ok(WorkerSelector { names: vec![name.to_owned()], ..WorkerSelector::default() });
    }
    if value.as_elements().is_some() {
        return Ok(WorkerSelector { names: texts(value).ok_or_else(wrong)?, ..WorkerSelector::default() });
    }
    let labels = value.get("match_labels").and_then(Value::as_map).unwrap_or_default();
    let match_labels = labels.iter().map(|(key, value)| Some((key.as_text()?.to_owned(), value.as_text()?.to_owned())));
    let expressions = value.get("match_expressions").and_then(Value::as_elements).unwrap_or_default();
    Ok(WorkerSelector {
        match_labels: match_labels.collect::<Option<_>>().ok_or_else(wrong)?,
        match_expressions: expressions.iter().map(expression).collect::<Option<_>>().ok_or_else(wrong)?,
        names: texts(value.get("names").ok_or_else(wrong)?).ok_or_else(wrong)?,
    })
}

fn expression(value: &Value) -> Option<LabelExpression> {
    let operator = value.get("operator")?.as_text()?;
    Some(LabelExpression {
        key: value.get("key")?.as_text()?.to_owned(),
        operator: Operator::ALL.into_iter().find(|known| known.as_str() == operator)?,
        values: texts(value.get("values")?)?,
    })
}

/// Texts; a worker may have a number for a name.
fn texts(value: &Value) -> Option<Vec<String>> {
    Some(value.as_elements()?.iter().map(|text| text.as_text().map_or_else(|| shown(text), str::to_owned)).collect())
}

fn resources(value: &Value) -> Result<Resources> {
    let mut resources = Resources::default();
    for (name, amount) in value.as_map().unwrap_or_default() {
        let name = name.as_text().map_or_else(|| shown(name), str::to_owned);
        let number =
            amount.as_number().ok_or_else(|| BuildDocumentError::Annotation { field: "resources", found: shown(amount) })?;
        let amount = Amount::from_f64(number).map_err(|source| BuildDocumentError::Amount { resource: name.clone(), source })?;
        resources.0.insert(name, amount);
    }
    Ok(resources)
}

/// A value in a message; numbers and texts as they are.
fn shown(value: &Value) -> String {
    value.as_key().map_or_else(|| value.kind().to_owned(), |key| key.to_string())
}
