//! The Secrets with the certificates of a namespace: made, renewed, and read by whoever mounts them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use thiserror::Error;
use time::OffsetDateTime;
use tracing::{info, warn};

use crate::api::labels::{AUTHORITY_SECRET, AUTHORITY_SECRET_TYPE, FIELD_MANAGER, MANAGED_BY, TLS_SECRET};
use crate::comm::{Credentials, Tls};
use crate::error::chain;
use crate::operator::certificates::{Authorities, CertificateError, Leaf};

const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEYS: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// How often certificates are looked at; more often where they live for less than a day.
const PERIOD: Duration = Duration::from_secs(600);

/// Why a namespace has no certificates.
#[derive(Debug, Error)]
pub(crate) enum SecretsError {
    #[error("failed to read the Secret `{name}`")]
    Read {
        name: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error("failed to write the Secret `{name}`")]
    Write {
        name: &'static str,
        #[source]
        source: kube::Error,
    },
    #[error(transparent)]
    Certificates(#[from] CertificateError),
}

impl SecretsError {
    /// What the API server said.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Read { source: kube::Error::Api(status), .. } | Self::Write { source: kube::Error::Api(status), .. } => {
                Some(status)
            }
            _ => None,
        }
    }
}

/// The Secrets of one namespace.
#[derive(Clone)]
pub(crate) struct Secrets {
    api: Api<Secret>,
    namespace: String,
    /// How long a leaf is valid.
    life: Duration,
}

impl Secrets {
    pub(crate) fn new(client: Client, namespace: &str, life: Duration) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), life }
    }

    /// Reads what is there, and makes what is missing or old.
    ///
    /// # Errors
    /// When the API server does not let us.
    pub(crate) async fn refresh(&self) -> Result<Credentials, SecretsError> {
        let now = OffsetDateTime::now_utc();
        let found = self.read(AUTHORITY_SECRET).await?;
        let mut authorities = match Authorities::read(&text(&found, AUTHORITIES), &text(&found, AUTHORITY_KEYS)) {
            Ok(authorities) => authorities,
            Err(error) => {
                warn!(namespace = self.namespace, error = %chain(&error), "the authority cannot be used: another is made");
                Authorities::default()
            }
        };
        if authorities.renew(&self.namespace, now, self.life)? {
            info!(namespace = self.namespace, "made a certificate authority");
            let data = [(AUTHORITIES, authorities.certificates()), (AUTHORITY_KEYS, authorities.keys())];
            self.write(AUTHORITY_SECRET, AUTHORITY_SECRET_TYPE, found, &data).await?;
        }
        let found = self.read(TLS_SECRET).await?;
        let known = Leaf::read(text(&found, CERTIFICATE), text(&found, KEY)).ok();
        let kept = known.filter(|leaf| !authorities.replaces(leaf, now, self.life));
        let is_current = kept.is_some() && text(&found, AUTHORITIES) == authorities.certificates();
        let Leaf { certificate, key, .. } = match kept {
            Some(leaf) => leaf,
            None => authorities.sign(&self.namespace, now, self.life)?,
        };
        let credentials = Credentials { authorities: authorities.certificates(), certificate, key };
        if !is_current {
            info!(namespace = self.namespace, "renewed the certificates");
            let Credentials { authorities, certificate, key } = credentials.clone();
            let data = [(AUTHORITIES, authorities), (CERTIFICATE, certificate), (KEY, key)];
            self.write(TLS_SECRET, "kubernetes.io/tls", found, &data).await?;
        }
        Ok(credentials)
    }

    /// Keeps the Secrets, and what comms are encrypted with, as they should be; never ends.
    pub(crate) async fn keep(self, tls: Option<Tls>) {
        let Some(tls) = tls else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PERIOD.min(self.life / 100)).await;
            let error = match self.refresh().await {
                Ok(credentials) => tls.replace(&credentials).err().map(|error| chain(&error)),
                Err(error) => Some(chain(&error)),
            };
            if let Some(error) = error {
                warn!(namespace = self.namespace, error, "failed to renew the certificates; trying again");
            }
        }
    }

    async fn read(&self, name: &'static str) -> Result<Option<Secret>, SecretsError> {
        self.api.get_opt(name).await.map_err(|source| SecretsError::Read { name, source })
    }

    /// Writes over what was found, and over nothing else.
    async fn write(
        &self,
        name: &'static str,
        type_: &str,
        found: Option<Secret>,
        data: &[(&str, String)],
    ) -> Result<(), SecretsError> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "labels": { MANAGED_BY: "mainstay" },
                "resourceVersion": found.and_then(|found| found.metadata.resource_version),
            },
            "type": type_,
            "stringData": data.iter().cloned().collect::<BTreeMap<_, _>>(),
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.api.patch(name, &parameters, &Patch::Apply(secret)).await.map_err(|source| SecretsError::Write { name, source })?;
        Ok(())
    }
}

/// One document of a Secret; empty if it is not there, which nothing can be made of.
fn text(secret: &Option<Secret>, key: &str) -> String {
    let data = secret.as_ref().and_then(|secret| secret.data.as_ref()?.get(key));
    data.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}
