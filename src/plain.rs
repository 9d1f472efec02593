//! Makes text of apps, clients and the system fit for printing. It must neither control a terminal
//! nor look like something else, neither on a terminal nor in a file that is shown on one later.

use std::fmt::Write as _;

/// `text` without escape sequences. Other characters that are invisible or reorder text become
/// `U+FFFD`.
pub fn plain(text: &str) -> String {
    let stripped = anstream::adapter::strip_str(text).to_string();
    stripped.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Makes a line of portok's own log harmless, which may quote other text. Colours (`ESC [ digits
/// m`) stay if `has_colour`. Further lines are indented, so that none looks like a log line of its
/// own.
pub fn log_line(line: &str, has_colour: bool) -> String {
    let mut shown = String::with_capacity(line.len());
    let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = colour(rest).filter(|_| has_colour) {
            shown.push_str(colour);
            rest = &rest[colour.len()..];
            continue;
        }
        match c {
            '\n' => shown.push_str("\n    "),
            c if is_hidden(c) => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    shown + end
}

/// The same JSON values, with the characters escaped that a terminal would obey.
pub fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // Line ends occur only between values; within a string they are escaped already.
        if is_hidden(c) && c != '\n' {
            _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A system error in words, without its number.
pub fn describe_io(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Whether `c` is a control character (C0 or C1) other than the tab, changes the direction of text,
/// or ends a line invisibly.
pub fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The colour sequence at the start of `text`.
fn colour(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("\x1b[")?;
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    digits[end..].starts_with('m').then(|| &text[..2 + end + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_taken_out_or_shown() {
        for (text, expected) in [
            ("a\tb €", "a\tb €"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("a\rb\x08\x07\x7fc", "a\u{fffd}bc"),
            ("\x1b]0;title\x07x", "x"),
            ("a\u{9b}31mb", "a\u{fffd}31mb"),
            ("a\u{202e}b\u{2066}c\u{200f}d\u{2028}e", "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e"),
            ("a\nb", "a\u{fffd}b"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_log_line_keeps_its_colours_and_nothing_else() {
        let line = "\x1b[2m12:00\x1b[0m \x1b[32m INFO\x1b[0m x\ry\x1b[2Jz\u{202e}\nforged\n";
        let coloured =
            "\x1b[2m12:00\x1b[0m \x1b[32m INFO\x1b[0m x\u{fffd}y\u{fffd}[2Jz\u{fffd}\n    forged\n";
        assert_eq!(log_line(line, true), coloured);
        assert_eq!(log_line("\x1b[31mx\n", false), "\u{fffd}[31mx\n");
        assert_eq!(log_line("12:00  INFO well\n", true), "12:00  INFO well\n");
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({ "line": "a\u{9b}31m\u{202e}\r\n\u{7f}ä" });
        let shown = json(&format!("{value:#}\n"));
        assert!(!shown.chars().any(|c| is_hidden(c) && c != '\n'), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
