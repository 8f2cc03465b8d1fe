//! Text that came from a task, made fit for status, events, logs and terminals.

use super::limits::{EXCEPTION_TEXT_BYTES_MAX, TRACEBACK_TEXT_BYTES_MAX};

/// The text of an exception: one line, cut, without control characters.
pub fn exception_text(text: &str) -> String {
    clean(text, EXCEPTION_TEXT_BYTES_MAX, false)
}

/// The text of a traceback: its lines stay, cut, without other control characters.
pub fn traceback_text(text: &str) -> String {
    clean(text, TRACEBACK_TEXT_BYTES_MAX, true)
}

fn clean(text: &str, bytes_max: usize, keeps_lines: bool) -> String {
    let mut cleaned = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let kept = match character {
            '\n' if keeps_lines => '\n',
            '\n' | '\t' => ' ',
            other if is_control(other) => continue,
            other => other,
        };
        if cleaned.len() + kept.len_utf8() > bytes_max {
            break;
        }
        cleaned.push(kept);
    }
    cleaned
}

/// Control characters, and those that turn the direction of writing, with which a text can pretend to be another.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{exception_text, traceback_text};

    #[test]
    fn control_characters_go_and_lines_of_a_traceback_stay() {
        assert_eq!(exception_text("a\x1b[31mb\r\nc\td\u{202e}e"), "a[31mb c de");
        assert_eq!(traceback_text("File x\n\tfoo\r\n"), "File x\n foo\n");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let cut = exception_text(&"é".repeat(600));
        assert_eq!(cut, "é".repeat(512));
        assert_eq!(traceback_text(&"x".repeat(20_000)).len(), 16 * 1024);
    }
}
