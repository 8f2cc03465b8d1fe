//! Shows errors with their causes.

use std::error::Error;

/// An error and its causes on one line: `a: b: c`.
///
/// A cause that its parent's text contains already is left out: some libraries put sources into their own text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
