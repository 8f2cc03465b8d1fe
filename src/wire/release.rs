//! Which releases of `distributed` Mainstay speaks to.
//!
//! A worker breaks off on a field that is missing or one too many, so releases are supported by name, and one that no test
//! has seen is refused when it registers. All of them take the same messages, so no encoder depends on the release; what
//! Clients ask in more than one form is told apart by its fields. docs/releases.md lists the differences.

use thiserror::Error;

use super::document::{DocumentError, Fields};

/// A release of `distributed` that the encoders and the builder were tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Release {
    distributed: &'static str,
    /// The releases of `dask` that go with it.
    dask: &'static [&'static str],
}

const fn release(distributed: &'static str, dask: &'static [&'static str]) -> Release {
    Release { distributed, dask }
}

/// Every supported release, oldest first. Each but the newest has a file in dev/releases.
const SUPPORTED: [Release; 11] = [
    release("2025.11.0", &["2025.11.0"]),
    release("2025.12.0", &["2025.12.0"]),
    // Its metadata asks for the dask before; other indexes than that of Python put that right.
    release("2026.1.0", &["2025.12.0", "2026.1.0"]),
    release("2026.1.1", &["2026.1.1"]),
    release("2026.1.2", &["2026.1.2"]),
    release("2026.1.3", &["2026.1.3"]),
    release("2026.3.0", &["2026.3.0"]),
    release("2026.6.0", &["2026.6.0"]),
    release("2026.7.0", &["2026.7.0"]),
    release("2026.7.1", &["2026.7.1"]),
    release("2026.8.0", &["2026.8.0"]),
];

/// Why a peer cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    #[error("distributed {found} is not supported; supported are the releases from {} to {}", oldest(), newest())]
    Unsupported { found: String },
    #[error("dask {dask} does not go with distributed {distributed}, which needs dask {needed}")]
    Mixed { dask: String, distributed: &'static str, needed: String },
    #[error("failed to read `versions`")]
    Versions(#[from] DocumentError),
}

impl Release {
    /// From the text of `distributed.__version__`.
    ///
    /// # Errors
    /// When it is not supported.
    pub fn from_version(version: &str) -> Result<Self, ReleaseError> {
        SUPPORTED
            .into_iter()
            .find(|release| release.distributed == version)
            .ok_or_else(|| ReleaseError::Unsupported { found: version.to_owned() })
    }

    /// From the field `versions` of a registration.
    ///
    /// # Errors
    /// When the field is not as it must be, or names a release that is not supported.
    pub fn from_versions(versions: &Fields<'_>) -> Result<Self, ReleaseError> {
        let packages = versions.fields("packages")?;
        let release = Self::from_version(packages.optional_text("distributed")?.unwrap_or("of an unknown release"))?;
        release.check_dask(packages.text("dask")?)?;
        Ok(release)
    }

    fn check_dask(self, dask: &str) -> Result<(), ReleaseError> {
        if self.dask.contains(&dask) {
            return Ok(());
        }
        Err(ReleaseError::Mixed { dask: dask.to_owned(), distributed: self.distributed, needed: self.dask.join(" or ") })
    }

    /// Every supported one, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        SUPPORTED.into_iter()
    }

    pub fn version(self) -> &'static str {
        self.distributed
    }
}

fn oldest() -> &'static str {
    SUPPORTED[0].distributed
}

fn newest() -> &'static str {
    SUPPORTED[SUPPORTED.len() - 1].distributed
}

#[cfg(test)]
mod tests {
    use super::Release;

    #[test]
    fn an_unknown_release_is_refused_with_those_that_are_known() {
        let error = Release::from_version("2024.1.0").unwrap_err();
        let text = "distributed 2024.1.0 is not supported; supported are the releases from 2025.11.0 to 2026.8.0";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn dask_has_to_go_with_distributed() {
        let release = Release::from_version("2026.1.0").unwrap();
        assert_eq!((release.check_dask("2025.12.0"), release.check_dask("2026.1.0")), (Ok(()), Ok(())));
        let error = release.check_dask("2026.8.0").unwrap_err();
        let text = "dask 2026.8.0 does not go with distributed 2026.1.0, which needs dask 2025.12.0 or 2026.1.0";
        assert_eq!(error.to_string(), text);
    }
}
