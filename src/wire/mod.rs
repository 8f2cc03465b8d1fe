//! Bytes to Dask messages and back.
