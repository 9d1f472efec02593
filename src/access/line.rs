//! An entry as a line. Pure.
//!
//! Whatever bytes a client has sent, a line has no end of line in it but its own, and nothing that
//! a terminal obeys.

use super::entry::Entry;
use super::{combined, hipache, json};
use crate::config::AccessFormat;

/// Adds `entry` to `out` as a line in `format`.
pub(super) fn write(out: &mut String, entry: &Entry, format: AccessFormat) {
    match format {
        AccessFormat::Json => json::write(out, entry),
        AccessFormat::Combined => combined::write(out, entry),
        AccessFormat::Hipache => hipache::write(out, entry),
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{empty, odd};
    use super::*;
    use crate::access::Text;

    #[test]
    fn every_odd_text_gives_one_line_of_bounded_length() {
        for format in [AccessFormat::Json, AccessFormat::Combined, AccessFormat::Hipache] {
            for odd in odd() {
                let mut entry = empty();
                for text in
                    [Text::Method, Text::Host, Text::Path, Text::UserAgent, Text::Referer, Text::RequestId]
                {
                    entry.set(text, &odd);
                }
                let mut line = String::new();
                write(&mut line, &entry, format);
                assert_eq!(line.matches('\n').count(), 1, "{line:?}");
                assert!(line.ends_with('\n') && line.len() < 48 * 1024, "{} bytes", line.len());
                let harmless = |c: char| c == '\n' || !crate::plain::is_hidden(c);
                assert!(line.chars().all(harmless), "{line:?}");
            }
        }
    }
}
