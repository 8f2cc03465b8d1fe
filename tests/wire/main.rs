//! The codec against what stock Dask peers really say, and against what nobody should say.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod captures;
mod corpora;
mod frames;
mod hostile;
mod pickles;
mod properties;
mod support;
mod tables;
