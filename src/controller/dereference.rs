//! Fetches what a spec refers to: the text of a ConfigMap or Secret.
//!
//! By `get` of the one object that is named, and no watch: the right to list Secrets would be the right to read them all.
//! So the object is read again from time to time, sooner while it is absent.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::api::conditions::reasons;
use crate::api::limits::SOURCE_BYTES_MAX;
use crate::api::{KeySelector, PythonFrom, Source};
use crate::controller::error::{Error, is_forbidden, is_gone};

/// How long an object that was found counts as unchanged.
const FRESH: Duration = Duration::from_secs(30);
/// How often to look for one that was not.
const ABSENT_RETRY: Duration = Duration::from_secs(3);
/// Most keys of a ConfigMap that a message lists.
const KEYS_SHOWN_MAX: usize = 10;

/// One key of one object in the collection's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
    pub key: String,
}

/// What kind of object holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ConfigMap,
    Secret,
}

/// Why there is no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    #[error("{0} is not there; create it, and it is picked up")]
    NotFound(Reference),
    #[error("{0} is not of type Opaque, and only those can hold a source")]
    NotOpaque(Reference),
    #[error("{reference} is there, but has no key `{}`{has}", reference.key)]
    KeyNotFound { reference: Reference, has: String },
    #[error("{reference}, key `{}`, {problem}", reference.key)]
    Unusable { reference: Reference, problem: &'static str },
    #[error("the operator may not read {0}; give its ServiceAccount `get` on it")]
    Forbidden(Reference),
}

impl Absence {
    /// The reason of the conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => reasons::SOURCE_NOT_FOUND,
            Self::KeyNotFound { .. } => reasons::SOURCE_KEY_NOT_FOUND,
            Self::Unusable { .. } | Self::NotOpaque(_) => reasons::SOURCE_INVALID,
            Self::Forbidden(_) => reasons::SOURCE_FORBIDDEN,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        };
        write!(f, "{kind} `{}`", self.name)
    }
}

/// What was found at a reference, and when.
#[derive(Debug)]
pub(super) struct Fetched {
    reference: Reference,
    pub(super) text: Result<String, Absence>,
    at: Instant,
}

/// What a source refers to; `None` if it refers to nothing, or to two things, which `validate` refuses.
pub fn reference_of(source: &Source) -> Option<Reference> {
    let PythonFrom { config_map_key_ref, secret_key_ref } = source.python_from.as_ref()?;
    let (kind, KeySelector { name, key }) = match (config_map_key_ref, secret_key_ref) {
        (Some(selector), None) => (Kind::ConfigMap, selector),
        (None, Some(selector)) => (Kind::Secret, selector),
        _ => return None,
    };
    Some(Reference { kind, name: name.clone(), key: key.clone() })
}

/// Makes `fetched` hold what the reference says, reading it unless it was read just now. Returns when to look again.
///
/// # Errors
/// When the API server does not answer; an object that is not there is no error.
pub(super) async fn refresh(
    client: &Client,
    namespace: &str,
    reference: Reference,
    fetched: &mut Option<Box<Fetched>>,
) -> Result<Duration, Error> {
    let age = fetched.as_ref().filter(|known| known.reference == reference).map(|known| (known.at.elapsed(), patience(known)));
    if let Some((age, patience)) = age
        && age < patience
    {
        return Ok(patience - age);
    }
    let text = read(client, namespace, &reference).await?;
    let known = fetched.insert(Box::new(Fetched { reference, text, at: Instant::now() }));
    Ok(patience(known))
}

fn patience(fetched: &Fetched) -> Duration {
    if fetched.text.is_ok() { FRESH } else { ABSENT_RETRY }
}

async fn read(client: &Client, namespace: &str, reference: &Reference) -> Result<Result<String, Absence>, Error> {
    let bytes = match reference.kind {
        Kind::ConfigMap => Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(&reference.name).await.map(|found| {
            found.map(|map| {
                let ConfigMap { data, binary_data, .. } = map;
                let keys: Vec<String> = data
                    .iter()
                    .flat_map(|data| data.keys())
                    .chain(binary_data.iter().flat_map(|data| data.keys()))
                    .cloned()
                    .collect();
                let text = data.and_then(|mut data| data.remove(&reference.key)).map(String::into_bytes);
                let bytes = binary_data.and_then(|mut data| data.remove(&reference.key)).map(|bytes| bytes.0);
                text.or(bytes).ok_or_else(|| show_keys(&keys))
            })
        }),
        Kind::Secret => {
            let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&reference.name).await;
            if found.as_ref().is_ok_and(|found| found.as_ref().is_some_and(|secret| !is_for_users(secret))) {
                return Ok(Err(Absence::NotOpaque(reference.clone())));
            }
            found.map(|found| {
                // The names of a Secret's keys are nobody's business here.
                found.map(|secret| {
                    secret.data.and_then(|mut data| data.remove(&reference.key)).map(|bytes| bytes.0).ok_or_else(String::new)
                })
            })
        }
    };
    match bytes {
        Ok(Some(Ok(bytes))) => Ok(text_of(bytes, reference)),
        Ok(Some(Err(has))) => Ok(Err(Absence::KeyNotFound { reference: reference.clone(), has })),
        Ok(None) => Ok(Err(Absence::NotFound(reference.clone()))),
        Err(error) if is_gone(&error) => Ok(Err(Absence::NotFound(reference.clone()))),
        Err(error) if is_forbidden(&error) => Ok(Err(Absence::Forbidden(reference.clone()))),
        Err(source) => Err(Error::ReadSource { what: reference.to_string(), source }),
    }
}

/// Whether a Secret is one that a person makes. What Kubernetes and other programs keep their tokens, keys and passwords in is
/// no source: who may make collections need not be allowed to read it, and errors quote the text.
fn is_for_users(secret: &Secret) -> bool {
    secret.type_.as_deref().is_none_or(|type_| type_ == "Opaque")
}

fn text_of(bytes: Vec<u8>, reference: &Reference) -> Result<String, Absence> {
    let unusable = |problem| Absence::Unusable { reference: reference.clone(), problem };
    if bytes.len() > SOURCE_BYTES_MAX {
        return Err(unusable("has more than 256 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| unusable("is no UTF-8 text"))?;
    if text.trim().is_empty() {
        return Err(unusable("is empty"));
    }
    Ok(text)
}

fn show_keys(keys: &[String]) -> String {
    if keys.is_empty() {
        return "; it is empty".to_owned();
    }
    let shown = keys.iter().take(KEYS_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("; it has {shown}{}", if keys.len() > KEYS_SHOWN_MAX { ", …" } else { "" })
}
