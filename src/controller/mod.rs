//! Makes the cluster match one `PersistedCollection`, and says in its status how far that is.
//!
//! One file a step, in this order:
//!
//! ```text
//! dereference ► validate ► plan ► apply ► status
//!   (client)     (pure)   (pure) (server)  (pure, then client)
//! ```

pub mod validate;
