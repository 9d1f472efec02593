//! Checks of single typed values. Each returns the value, or a description of what was expected.

use std::time::Duration;

/// The longest release id and the longest instance name, in characters.
const MAX_NAME: usize = 64;

/// An instance's name. It becomes part of a path.
pub(crate) fn instance_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name(text, fits, "letters, digits, `_` and `-`")
}

/// A release's id.
pub(crate) fn release_id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name(text, fits, "letters, digits, `.`, `_` and `-`")
}

fn name(text: &str, fits: impl Fn(char) -> bool, expected: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
        return Err(format!("expected 1 to {MAX_NAME} of {expected}"));
    }
    Ok(text.to_owned())
}

/// A command for the shell.
pub(crate) fn shell_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("the command is empty".into()) } else { Ok(text.to_owned()) }
}

/// A health path.
pub(crate) fn health_path(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a path that starts with `/`, such as `/health`".into())
    }
}

/// A duration.
pub(crate) fn wait_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 30s or 10m".to_owned())
}

/// `NAME=VALUE`, split at the first `=`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("expected NAME=VALUE".into());
    };
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("expected NAME=VALUE, NAME not empty and without a digit in front".into());
    }
    if let Some(bad) = key.chars().find(|c| !c.is_ascii_graphic() || "\"'`$\\".contains(*c)) {
        return Err(format!("{bad:?} cannot stand in a variable's name"));
    }
    if value.contains('\0') {
        return Err("a value cannot hold a NUL".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A user's name. It becomes part of a unit file.
pub(crate) fn user_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !begins || text.len() > 32 || !text.chars().all(fits) {
        return Err("expected a user's name".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_what_follows_the_first_equals_sign() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
    }
}
