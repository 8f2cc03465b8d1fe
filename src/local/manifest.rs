//! Reads manifests as `kubectl apply` would, without a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kube::Resource as _;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::api::{PersistedCollection, PersistedCollectionSpec};
use crate::controller::validate::{self, ValidatedCollection, validate};

/// One collection of a manifest, ready to be run.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) name: String,
    pub(crate) validated: ValidatedCollection,
}

/// Why a manifest cannot be run.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("failed to read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    // The text of a YAML error has the lines with a caret; it stands below.
    #[error("{} is no valid YAML:\n{text}", path.display())]
    Yaml { path: PathBuf, text: String },
    #[error("{}: a document is no Kubernetes object: {text}", path.display())]
    Object { path: PathBuf, text: String },
    #[error("{}: PersistedCollection `{name}`: {text}", path.display())]
    Schema { path: PathBuf, name: String, text: String },
    #[error("{}: PersistedCollection `{name}`", path.display())]
    Invalid {
        path: PathBuf,
        name: String,
        #[source]
        source: validate::Error,
    },
    #[error("{}: PersistedCollection `{name}`: there is no {kind} `{reference}` with the key `{key}` in the manifest", path.display())]
    NoReference { path: PathBuf, name: String, kind: &'static str, reference: String, key: String },
    #[error("two PersistedCollections are named `{name}`")]
    Twice { name: String },
    #[error("{} has no PersistedCollection", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Empty(Vec<PathBuf>),
}

/// The fields of an object that any kind has.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// Texts by kind, name and key.
type Texts = BTreeMap<(&'static str, String, String), String>;

/// An object of any kind.
#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// Reads all collections of all files; other kinds than ConfigMap and Secret are left out.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Collection>, Error> {
    let mut texts = Texts::new();
    let mut specs = Vec::new();
    for path in paths {
        for document in documents(path)? {
            let object: Object = serde_json::from_value(document.clone())
                .map_err(|error| Error::Object { path: path.clone(), text: error.to_string() })?;
            match object.kind.as_str() {
                "ConfigMap" => keep_texts(&mut texts, "ConfigMap", &object),
                "Secret" => keep_texts(&mut texts, "Secret", &object),
                "PersistedCollection" => {
                    specs.push((path, object.metadata.name.clone(), spec(path, &object.metadata.name, &document)?))
                }
                _ => {}
            }
        }
    }
    let mut collections: Vec<Collection> = Vec::new();
    for (path, name, spec) in specs {
        if collections.iter().any(|collection| collection.name == name) {
            return Err(Error::Twice { name });
        }
        let text = text(path, &name, &spec, &texts)?;
        let validated =
            validate(&name, &spec, text).map_err(|source| Error::Invalid { path: path.clone(), name: name.clone(), source })?;
        collections.push(Collection { name, validated });
    }
    if collections.is_empty() { Err(Error::Empty(paths.to_vec())) } else { Ok(collections) }
}

fn documents(path: &Path) -> Result<Vec<Value>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| Error::Yaml { path: path.to_owned(), text: error.to_string() })?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The spec, read as strictly as the API server does: a misspelt field is an error.
fn spec(path: &Path, name: &str, document: &Value) -> Result<PersistedCollectionSpec, Error> {
    let schema = |text: String| Error::Schema { path: path.to_owned(), name: name.to_owned(), text };
    let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let expected = PersistedCollection::api_version(&());
    if version != expected {
        return Err(schema(format!("apiVersion is `{version}`; this version of Mainstay knows `{expected}`")));
    }
    if name.is_empty() {
        return Err(schema("metadata.name is missing".to_owned()));
    }
    let mut unknown = Vec::new();
    unknown.extend(
        document
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, _)| field.clone())
            .filter(|field| !FIELDS.contains(&field.as_str())),
    );
    let spec = document.get("spec").ok_or_else(|| schema("spec is missing".to_owned()))?;
    let mut note = |field: serde_ignored::Path<'_>| unknown.push(format!("spec.{}", shown_path(&field.to_string())));
    let strict = serde_ignored::Deserializer::new(spec, &mut note);
    let result: Result<PersistedCollectionSpec, _> = serde_path_to_error::deserialize(strict);
    let spec = result.map_err(|error| {
        // The path of the spec itself is a dot.
        let place = Some(error.path().to_string()).filter(|place| place != ".");
        let place = place.map_or_else(|| "spec".to_owned(), |place| format!("spec.{place}"));
        let text = error.into_inner().to_string();
        // What YAML 1.1 makes of a bare y, n, yes, no, on or off surprises everybody once.
        let hint = if text.contains("boolean `") { "; quote words such as \"y\", \"no\" and \"on\"" } else { "" };
        schema(format!("{place}: {text}{hint}"))
    })?;
    match unknown.into_iter().next() {
        Some(field) => Err(schema(format!("unknown field `{field}`; docs/write-a-collection.md lists the fields"))),
        None => Ok(spec),
    }
}

/// `tasks.?.0.retry` as `tasks[0].retry`.
fn shown_path(path: &str) -> String {
    let mut shown = String::new();
    for step in path.split('.').filter(|step| *step != "?") {
        if step.parse::<usize>().is_ok() {
            shown.push_str(&format!("[{step}]"));
        } else {
            shown.push_str(if shown.is_empty() { "" } else { "." });
            shown.push_str(step);
        }
    }
    shown
}

fn keep_texts(texts: &mut Texts, kind: &'static str, object: &Object) {
    let name = &object.metadata.name;
    for field in ["data", "stringData"] {
        for (key, value) in object.rest.get(field).and_then(Value::as_object).into_iter().flatten() {
            let Some(text) = value.as_str() else { continue };
            let is_encoded = kind == "Secret" && field == "data";
            let text = if is_encoded { decode_base64(text) } else { Some(text.to_owned()) };
            if let Some(text) = text {
                texts.insert((kind, name.clone(), key.clone()), text);
            }
        }
    }
}

fn decode_base64(text: &str) -> Option<String> {
    // The type of a Secret's data knows how.
    let bytes: k8s_openapi::ByteString = serde_json::from_value(Value::String(text.to_owned())).ok()?;
    String::from_utf8(bytes.0).ok()
}

/// What `source.pythonFrom` refers to, among the objects of the manifests.
fn text(path: &Path, name: &str, spec: &PersistedCollectionSpec, texts: &Texts) -> Result<Option<String>, Error> {
    let Some(from) = &spec.source.python_from else { return Ok(None) };
    let references = [("ConfigMap", &from.config_map_key_ref), ("Secret", &from.secret_key_ref)];
    let Some((kind, selector)) = references.into_iter().find_map(|(kind, selector)| Some((kind, selector.as_ref()?))) else {
        return Ok(None);
    };
    let found = texts.get(&(kind, selector.name.clone(), selector.key.clone())).cloned();
    found.map(Some).ok_or_else(|| Error::NoReference {
        path: path.to_owned(),
        name: name.to_owned(),
        kind,
        reference: selector.name.clone(),
        key: selector.key.clone(),
    })
}
