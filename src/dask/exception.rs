//! Exceptions, which workers hand on as Python's `repr` shows them.

/// `ValueError: bad row 7` for `ValueError('bad row 7')`, as Python ends a traceback. Any other `repr` stays as it is.
pub fn readable_exception(repr: &str) -> String {
    let Some((name, arguments)) = repr.strip_suffix(')').and_then(|text| text.split_once('(')) else { return repr.to_owned() };
    if !is_dotted_name(name) {
        return repr.to_owned();
    }
    match arguments {
        "" => name.to_owned(),
        _ => plain_text(arguments).map_or_else(|| repr.to_owned(), |text| format!("{name}: {text}")),
    }
}

/// The exception's type in a text of either form, and nothing else of it.
pub fn exception_type(text: &str) -> &str {
    match text.split_once([':', '(']) {
        Some((name, _)) if is_dotted_name(name) => name,
        _ => "an exception",
    }
}

/// What is between the quotes of one Python string that has no escapes.
fn plain_text(argument: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| {
        let text = argument.strip_prefix(quote)?.strip_suffix(quote)?;
        (!text.contains([quote, '\\'])).then_some(text)
    })
}

fn is_dotted_name(text: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|first: char| first.is_alphabetic() || first == '_')
            && part.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    text.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repr_reads_as_the_end_of_a_traceback() {
        for (repr, text) in [
            ("ValueError('bad row 7')", "ValueError: bad row 7"),
            (r#"ValueError("it's bad")"#, "ValueError: it's bad"),
            ("RuntimeError()", "RuntimeError"),
            ("acme.Broken('no (such) thing')", "acme.Broken: no (such) thing"),
            ("OSError(2, 'No such file')", "OSError(2, 'No such file')"),
            ("KeyError('a', 'b')", "KeyError('a', 'b')"),
            (r"ValueError('two\nlines')", r"ValueError('two\nlines')"),
            ("<Broken thing>", "<Broken thing>"),
            ("", ""),
        ] {
            assert_eq!(readable_exception(repr), text, "{repr}");
        }
    }

    #[test]
    fn a_type_gives_nothing_else_away() {
        for (text, name) in [
            ("ValueError: bad row 7", "ValueError"),
            ("ValueError('bad row: 7')", "ValueError"),
            ("acme.Broken()", "acme.Broken"),
            ("bad row: 7", "an exception"),
            ("hunter2", "an exception"),
            ("", "an exception"),
        ] {
            assert_eq!(exception_type(text), name, "{text}");
        }
    }
}
