//! Turns a spec as it was written into one that cannot be wrong.
//!
//! Pure. Refuses all that the schema and its rules refuse, since `mainstay local` has no API server before it, and what they
//! cannot see: the graph of inline tasks, Python's keywords, sizes of free-form values. After this step nobody reads the spec.

mod error;
mod name;
mod overrides;
mod revision;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

pub use error::{Error, Problem};

use crate::api::{
    Actors, Entrypoint, Input, LabelRequirement, PersistedCollectionSpec, Persistence, Source, Workers,
    limits::{
        ACTOR_TASKS_MAX, ARGUMENTS_MAX, CALLABLE_LENGTH_MAX, COLLECTIONS_MAX, EXPRESSION_VALUES_MAX, FIFO_TIMEOUT_SECONDS_MAX,
        FREE_FORM_BYTES_MAX, FREE_FORM_PROPERTIES_MAX, INPUTS_MAX, LABEL_EXPRESSIONS_MAX, LABELS_MAX, NAME_LENGTH_MAX,
        PRIORITY_MAX, REPLICAS_MAX, RESOURCES_MAX, RETRIES_MAX, SOURCE_BYTES_MAX, WORKER_NAMES_MAX,
    },
};
use crate::dask::parse_timedelta;
use crate::engine::{Amount, LabelExpression, Operator, Requirements, Resources, WorkerSelector};
use crate::server::{self, BuildRequest};

/// A spec that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedCollection {
    /// All that decides the graph.
    pub build: Arc<BuildRequest>,
    /// Under which conditions it runs.
    pub requirements: Requirements,
    /// Equal for specs with equal graphs: a hash of `build`.
    pub revision: String,
}

/// Checks a spec. `text` is what `source.pythonFrom` refers to, if it does.
///
/// # Errors
/// With the first thing that is wrong: its field, what was found and what would do.
pub fn validate(name: &str, spec: &PersistedCollectionSpec, text: Option<String>) -> Result<ValidatedCollection, Error> {
    let PersistedCollectionSpec {
        source,
        parameters,
        inputs,
        collections,
        optimize_graph,
        optimize_options,
        workers,
        allow_other_workers,
        resources,
        retries,
        priority,
        fifo_timeout,
        actors,
        persistence,
        overrides,
    } = spec;
    let source = validate_source(source, text, inputs)?;
    free_form("spec.parameters", parameters)?;
    free_form("spec.optimizeOptions", optimize_options)?;
    if matches!(source, server::Source::Tasks(_)) && !optimize_options.is_empty() {
        return Err(Error::new("spec.optimizeOptions", Problem::NotOptimised));
    }
    let build = BuildRequest {
        name: name.to_owned(),
        parameters: parameters.clone(),
        inputs: validate_inputs(name, inputs)?,
        collections: validate_collections(&source, collections)?,
        optimize_graph: *optimize_graph,
        optimize_options: optimize_options.clone(),
        actors: validate_actors(&source, actors.as_ref())?,
        source,
    };
    let requirements = Requirements {
        workers: validate_own_workers(workers.as_ref())?,
        allow_other_workers: *allow_other_workers,
        resources: validate_resources("spec.resources", resources)?,
        retries: validate_retries("spec.retries", *retries)?,
        priority: validate_priority("spec.priority", *priority)?,
        replicas: validate_replicas(persistence.as_ref())?,
        fifo_timeout_ms: validate_fifo_timeout(fifo_timeout)?,
        overrides: overrides::validate(overrides)?,
    };
    if requirements.allow_other_workers && requirements.workers.is_none() {
        return Err(Error::new("spec.allowOtherWorkers", Problem::NothingToPrefer));
    }
    if requirements.workers.is_none()
        && requirements.overrides.as_slice().iter().all(|one| one.conditions.workers.is_none())
        && let server::Source::Tasks(tasks) = &build.source
    {
        task::prefer_something(tasks)?;
    }
    let revision = revision::of(&build);
    Ok(ValidatedCollection { build: Arc::new(build), requirements, revision })
}

fn validate_source(source: &Source, text: Option<String>, inputs: &BTreeMap<String, Input>) -> Result<server::Source, Error> {
    let Source { python, python_from, entrypoint, tasks } = source;
    let given = [
        ("python", python.is_some()),
        ("pythonFrom", python_from.is_some()),
        ("entrypoint", entrypoint.is_some()),
        ("tasks", tasks.is_some()),
    ];
    let one = |found: Vec<&str>| Error::new("spec.source", Problem::SourceCount { found: found.join(" and ") });
    match (python, python_from, entrypoint, tasks) {
        (Some(text), None, None, None) => python_source("spec.source.python", text.clone()),
        (None, Some(reference), None, None) => {
            if reference.config_map_key_ref.is_some() == reference.secret_key_ref.is_some() {
                return Err(Error::new("spec.source.pythonFrom", Problem::ReferenceCount));
            }
            for selector in reference.config_map_key_ref.iter().chain(&reference.secret_key_ref) {
                name::object_name("spec.source.pythonFrom", &selector.name)?;
                name::length("spec.source.pythonFrom", &selector.key, NAME_LENGTH_MAX)?;
            }
            let text = text.ok_or_else(|| Error::new("spec.source.pythonFrom", Problem::NotResolved))?;
            python_source("spec.source.pythonFrom", text)
        }
        (None, None, Some(entrypoint), None) => validate_entrypoint(entrypoint),
        (None, None, None, Some(tasks)) => task::validate(tasks, inputs).map(server::Source::Tasks),
        _ => Err(one(given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect())),
    }
}

fn python_source(field: &str, text: String) -> Result<server::Source, Error> {
    if text.trim().is_empty() {
        return Err(Error::new(field, Problem::EmptySource));
    }
    if text.len() > SOURCE_BYTES_MAX {
        return Err(Error::new(field, Problem::TooLong { found: text.len(), max: SOURCE_BYTES_MAX }));
    }
    if text.contains('\0') {
        return Err(Error::new(field, Problem::NullByte));
    }
    Ok(server::Source::Python { text })
}

fn validate_entrypoint(entrypoint: &Entrypoint) -> Result<server::Source, Error> {
    let Entrypoint { callable, args, kwargs } = entrypoint;
    name::callable("spec.source.entrypoint.callable", callable)?;
    arguments("spec.source.entrypoint", args, kwargs)?;
    Ok(server::Source::Entrypoint { callable: callable.clone(), args: args.clone(), kwargs: kwargs.clone() })
}

/// Arguments of an entrypoint or a task.
fn arguments(field: &str, args: &[Value], kwargs: &Map<String, Value>) -> Result<(), Error> {
    if args.len() > ARGUMENTS_MAX {
        return Err(Error::new(format!("{field}.args"), Problem::TooMany { found: args.len(), max: ARGUMENTS_MAX }));
    }
    free_form(&format!("{field}.kwargs"), kwargs)
}

/// An object of any values. YAML 1.1, which kubectl speaks, takes the bare words y, n, yes, no, on and off for booleans; as a
/// name of a value that is never meant.
fn free_form(field: &str, object: &Map<String, Value>) -> Result<(), Error> {
    if object.len() > FREE_FORM_PROPERTIES_MAX {
        return Err(Error::new(field, Problem::TooMany { found: object.len(), max: FREE_FORM_PROPERTIES_MAX }));
    }
    if let Some(name) = object.keys().find(|name| matches!(name.as_str(), "true" | "false")) {
        return Err(Error::new(field, Problem::BooleanName { found: name.clone() }));
    }
    let bytes = serde_json::to_vec(object).map_or(0, |json| json.len());
    if bytes > FREE_FORM_BYTES_MAX {
        return Err(Error::new(field, Problem::TooLong { found: bytes, max: FREE_FORM_BYTES_MAX }));
    }
    Ok(())
}

fn validate_inputs(own_name: &str, inputs: &BTreeMap<String, Input>) -> Result<BTreeMap<String, server::Input>, Error> {
    at_most("spec.inputs", inputs.len(), INPUTS_MAX)?;
    let mut validated = BTreeMap::new();
    for (variable, Input { persisted_collection, output }) in inputs {
        let field = format!("spec.inputs.{variable}");
        name::variable("spec.inputs", variable)?;
        if variable == "params" {
            return Err(Error::new(field, Problem::ShadowsParameters));
        }
        name::object_name(&format!("{field}.persistedCollection"), persisted_collection)?;
        name::length(&format!("{field}.output"), output, NAME_LENGTH_MAX)?;
        if persisted_collection == own_name {
            return Err(Error::new(field, Problem::ReadsItself));
        }
        validated.insert(variable.clone(), server::Input { collection: persisted_collection.clone(), output: output.clone() });
    }
    Ok(validated)
}

fn validate_collections(source: &server::Source, collections: &[String]) -> Result<Vec<String>, Error> {
    let field = "spec.collections";
    let named = match source {
        server::Source::Tasks(tasks) if collections.is_empty() => task::sinks(tasks)?,
        server::Source::Tasks(tasks) => {
            let keys: BTreeSet<&str> = tasks.iter().map(|task| task.key.as_str()).collect();
            if let Some(unknown) = collections.iter().find(|name| !keys.contains(name.as_str())) {
                return Err(task::unknown(field, unknown, tasks));
            }
            collections.to_vec()
        }
        server::Source::Python { .. } | server::Source::Entrypoint { .. } => {
            if collections.is_empty() {
                return Err(Error::new(field, Problem::NoCollections));
            }
            for name in collections {
                name::variable(field, name)?;
            }
            collections.to_vec()
        }
    };
    at_most(field, named.len(), COLLECTIONS_MAX)?;
    distinct(field, &named)?;
    Ok(named)
}

fn validate_actors(source: &server::Source, actors: Option<&Actors>) -> Result<server::Actors, Error> {
    let Some(Actors { all, tasks }) = actors else { return Ok(server::Actors::default()) };
    let field = "spec.actors.tasks";
    at_most(field, tasks.len(), ACTOR_TASKS_MAX)?;
    for name in tasks.keys() {
        name::length(field, name, NAME_LENGTH_MAX)?;
        if let server::Source::Tasks(known) = source
            && !known.iter().any(|task| task.key == *name)
        {
            return Err(task::unknown(field, name, known));
        }
    }
    Ok(server::Actors { all: *all, tasks: tasks.clone() })
}

fn validate_own_workers(workers: Option<&Workers>) -> Result<Option<WorkerSelector>, Error> {
    let selector = workers.map(|workers| validate_workers("spec.workers", workers)).transpose()?;
    // An empty selector matches everything, as in Kubernetes: it restricts nothing and has nothing to prefer.
    Ok(selector.filter(|selector| *selector != WorkerSelector::default()))
}

/// Also for the workers of one inline task or override.
fn validate_workers(field: &str, workers: &Workers) -> Result<WorkerSelector, Error> {
    let Workers { match_labels, match_expressions, names } = workers;
    let of = |part: &str| format!("{field}.{part}");
    at_most(&of("matchLabels"), match_labels.len(), LABELS_MAX)?;
    for (key, value) in match_labels {
        name::label_key(&of("matchLabels"), key)?;
        name::label_value(&format!("{field}.matchLabels.{key}"), value)?;
    }
    at_most(&of("matchExpressions"), match_expressions.len(), LABEL_EXPRESSIONS_MAX)?;
    let expressions = match_expressions.iter().enumerate();
    let expressions = expressions
        .map(|(index, expression)| validate_expression(&format!("{field}.matchExpressions[{index}]"), expression))
        .collect::<Result<_, _>>()?;
    at_most(&of("names"), names.len(), WORKER_NAMES_MAX)?;
    distinct(&of("names"), names)?;
    for name in names {
        name::length(&of("names"), name, NAME_LENGTH_MAX)?;
    }
    Ok(WorkerSelector { match_labels: match_labels.clone(), match_expressions: expressions, names: names.clone() })
}

fn validate_expression(field: &str, requirement: &LabelRequirement) -> Result<LabelExpression, Error> {
    let LabelRequirement { key, operator, values } = requirement;
    name::label_key(&format!("{field}.key"), key)?;
    let Some(operator) = Operator::ALL.into_iter().find(|known| known.as_str() == operator) else {
        return Err(Error::new(format!("{field}.operator"), Problem::UnknownOperator { found: operator.clone() }));
    };
    if matches!(operator, Operator::In | Operator::NotIn) == values.is_empty() {
        return Err(Error::new(format!("{field}.values"), Problem::OperatorValues));
    }
    at_most(&format!("{field}.values"), values.len(), EXPRESSION_VALUES_MAX)?;
    for value in values {
        name::label_value(&format!("{field}.values"), value)?;
    }
    Ok(LabelExpression { key: key.clone(), operator, values: values.clone() })
}

/// Also for the resources of one inline task or override.
fn validate_resources(field: &str, resources: &BTreeMap<String, f64>) -> Result<Resources, Error> {
    at_most(field, resources.len(), RESOURCES_MAX)?;
    let mut validated = BTreeMap::new();
    for (name, amount) in resources {
        name::resource(field, name)?;
        let amount = Amount::from_f64(*amount)
            .map_err(|source| Error::new(format!("{field}.{name}"), Problem::Amount { what: source.to_string() }))?;
        validated.insert(name.clone(), amount);
    }
    Ok(Resources(validated))
}

/// Also for the retries of one inline task or override.
fn validate_retries(field: &str, retries: i64) -> Result<u32, Error> {
    u32::try_from(retries)
        .ok()
        .filter(|_| retries <= RETRIES_MAX)
        .ok_or_else(|| Error::new(field, Problem::Retries { found: retries }))
}

fn validate_replicas(persistence: Option<&Persistence>) -> Result<u32, Error> {
    let Some(Persistence { replicas }) = persistence else { return Ok(1) };
    let counted = u32::try_from(*replicas).ok().filter(|_| (1..=REPLICAS_MAX).contains(replicas));
    counted.ok_or_else(|| Error::new("spec.persistence.replicas", Problem::Replicas { found: *replicas }))
}

/// Also for the priority of one inline task or override.
fn validate_priority(field: &str, priority: f64) -> Result<f64, Error> {
    // Written so that NaN is refused as well.
    if (-PRIORITY_MAX..=PRIORITY_MAX).contains(&priority) {
        Ok(priority)
    } else {
        Err(Error::new(field, Problem::Priority { found: priority.to_string() }))
    }
}

fn validate_fifo_timeout(text: &str) -> Result<u64, Error> {
    let field = "spec.fifoTimeout";
    let seconds = parse_timedelta(text)
        .map_err(|source| Error::new(field, Problem::Duration { found: text.to_owned(), what: source.to_string() }))?;
    if seconds > FIFO_TIMEOUT_SECONDS_MAX {
        return Err(Error::new(field, Problem::DurationTooLong { found: text.to_owned() }));
    }
    // In range, hence no loss; less than a millisecond is none.
    Ok((seconds * 1000.0).round() as u64)
}

fn at_most(field: &str, found: usize, max: usize) -> Result<(), Error> {
    if found > max { Err(Error::new(field, Problem::TooMany { found, max })) } else { Ok(()) }
}

fn distinct(field: &str, names: &[String]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(Error::new(field, Problem::Duplicate { found: twice.clone() })),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
