//! The lines of `portok status`: a problem, and a named value.

use std::fmt::Write as _;

use super::words::{BAD, DIM, paint, plain};

/// Writes a problem. Further lines of it are indented below its name.
pub(super) fn write_problem(text: &mut String, what: &str, problem: &str) {
    let mut lines = problem.lines();
    _ = writeln!(
        text,
        "  {} {}",
        paint(BAD, format_args!("! {what}:")),
        plain(lines.next().unwrap_or_default())
    );
    for line in lines {
        _ = writeln!(text, "    {}", plain(line));
    }
}

/// Writes a value with its name.
pub(super) fn write_row(text: &mut String, name: &str, value: &str) {
    _ = writeln!(text, "  {} {value}", paint(DIM, format_args!("{name:<10}")));
}
