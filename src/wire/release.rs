//! Which releases of `distributed` Mainstay speaks to.
//!
//! A worker breaks off on a missing or an additional field, so each release has its own encoders, and a release that
//! no test has seen is refused when it registers. A new release is one row here and, where it differs, one encoder.

use thiserror::Error;

use super::document::{DocumentError, Fields};

/// A release of `distributed` that the encoders were tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    V2026_8_0,
}

/// Every supported release and its version text.
const SUPPORTED: [(&str, Release); 1] = [("2026.8.0", Release::V2026_8_0)];

/// Why a peer cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    #[error("distributed {found} is not supported; supported: {}", supported())]
    Unsupported { found: String },
    #[error("dask {dask} is not the release of distributed {distributed}; both must be the same")]
    Mixed { dask: String, distributed: String },
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
            .iter()
            .find(|(text, _)| *text == version)
            .map(|(_, release)| *release)
            .ok_or_else(|| ReleaseError::Unsupported { found: version.to_owned() })
    }

    /// From the field `versions` of a registration.
    ///
    /// # Errors
    /// When the field is not as it must be, or names a release that is not supported.
    pub fn from_versions(versions: &Fields<'_>) -> Result<Self, ReleaseError> {
        let packages = versions.fields("packages")?;
        let distributed = packages.optional_text("distributed")?.unwrap_or("of an unknown release");
        let release = Self::from_version(distributed)?;
        let dask = packages.text("dask")?;
        if dask != distributed {
            return Err(ReleaseError::Mixed { dask: dask.to_owned(), distributed: distributed.to_owned() });
        }
        Ok(release)
    }

    pub fn version(self) -> &'static str {
        match self {
            Self::V2026_8_0 => "2026.8.0",
        }
    }
}

fn supported() -> String {
    SUPPORTED.map(|(text, _)| text).join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Release, SUPPORTED};

    #[test]
    fn an_unknown_release_is_refused_with_both_names() {
        let error = Release::from_version("2024.1.0").unwrap_err();
        assert_eq!(error.to_string(), "distributed 2024.1.0 is not supported; supported: 2026.8.0");
    }

    #[test]
    fn every_row_names_its_release() {
        for (text, release) in SUPPORTED {
            assert_eq!(release.version(), text);
        }
    }
}
