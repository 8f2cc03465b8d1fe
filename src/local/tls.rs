//! The certificates of `mainstay local`: files, read again when they change.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::comm::{Credentials, Tls};
use crate::local::args::LocalArgs;

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Where the certificates are.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    authorities: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// Those of the command line.
    pub(crate) fn of(args: &LocalArgs) -> Option<Self> {
        let (authorities, certificate, key) = (args.tls_ca_file.clone()?, args.tls_cert.clone()?, args.tls_key.clone()?);
        Some(Self { authorities, certificate, key })
    }

    /// The same for `dask worker`.
    pub(crate) fn flags(&self) -> [OsString; 6] {
        let [ca_file, cert, key] = ["--tls-ca-file", "--tls-cert", "--tls-key"].map(OsString::from);
        [ca_file, (&self.authorities).into(), cert, (&self.certificate).into(), key, (&self.key).into()]
    }

    pub(crate) fn read(&self) -> Result<Tls> {
        Tls::new(&self.credentials()?, Handle::current()).context("failed to use the certificates")
    }

    fn credentials(&self) -> Result<Credentials> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()));
        Ok(Credentials { authorities: read(&self.authorities)?, certificate: read(&self.certificate)?, key: read(&self.key)? })
    }
}

/// Has comms take what the files say from then on; never ends.
pub(crate) async fn follow(followed: Option<(Files, Tls)>) -> Infallible {
    let Some((files, tls)) = followed else { std::future::pending().await };
    let mut known = files.credentials().ok();
    loop {
        sleep(PERIOD).await;
        let Ok(found) = files.credentials() else { continue };
        if known.as_ref() == Some(&found) {
            continue;
        }
        // A certificate and its key are not replaced at once: they may fit together the next time.
        match tls.replace(&found) {
            Ok(()) => known = Some(found),
            Err(error) => tracing::warn!(error = %crate::error::chain(&error), "the changed certificates cannot be used"),
        }
    }
}
