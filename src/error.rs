//! Shows errors with their causes.

use std::error::Error;

/// An error and its causes on one line: `a: b: c`.
///
/// A cause that its parent's text contains already is left out: some libraries put sources into their own text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let said = said_by_api_server(error);
        next = if said.is_some() { None } else { error.source() };
        let own = said.unwrap_or_else(|| error.to_string());
        if text.is_empty() {
            text = own;
        } else if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
    }
    text
}

/// What the API server said, without the whole answer that kube writes after it.
#[cfg(feature = "operator")]
fn said_by_api_server(error: &(dyn Error + 'static)) -> Option<String> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Some(format!("{} ({})", status.message, status.code)),
        _ => None,
    }
}

#[cfg(not(feature = "operator"))]
fn said_by_api_server(_error: &(dyn Error + 'static)) -> Option<String> {
    None
}

#[cfg(all(test, feature = "operator"))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_api_server_is_said_once_and_in_its_own_words() {
        let status = kube::core::Status::failure("pods is forbidden", "Forbidden").with_code(403);
        assert_eq!(chain(&kube::Error::Api(status.boxed())), "pods is forbidden (403)");
    }

    #[test]
    fn causes_come_after_what_they_caused() {
        let error = std::io::Error::other("disk full");
        assert_eq!(chain(&kube::Error::Service(Box::new(error))), "ServiceError: disk full");
    }
}
