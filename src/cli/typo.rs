//! Advice for mistyped arguments: the nearest option that exists. Never advice that would turn the
//! option into a word of the app's command.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error};

use super::asking;
use super::values::instance_or_app;

/// The greatest edit distance at which an option counts as near.
const EDITS: usize = 2;

/// `error`, with the nearest option of `tree` in place of clap's own advice if an option is
/// mistyped.
pub(crate) fn advise(mut error: Error, tree: &Command, arguments: &[OsString]) -> Error {
    let word = match error.kind() {
        ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
        // Of a word that a command does take, such as a release.
        ErrorKind::ValueValidation => error.get(ContextKind::InvalidValue),
        _ => return error,
    };
    let Some(ContextValue::String(typed)) = word else { return error };
    if !typed.starts_with('-') {
        // Some commands take an instance's name as a word, so people try it with the others too.
        let command = command(tree, arguments).map(Command::get_name);
        let is_name = error.kind() == ErrorKind::UnknownArgument || typed.contains('/');
        if is_name && instance_or_app(typed).is_ok() && command.is_some_and(asking::needs_instance_option) {
            let what = if typed.contains('/') { "an app of an instance" } else { "an instance" };
            let tip = format!("{what} is named with '--instance {typed}'").into();
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
        }
        return error;
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let nearest = nearest(typed.trim_start_matches('-'), &options(tree, arguments));
    error.remove(ContextKind::Suggested);
    match nearest {
        Some(nearest) => {
            error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{nearest}")))
        }
        None => error.remove(ContextKind::SuggestedArg),
    };
    error
}

/// The advice in a clap error, for `--json`.
pub(crate) fn hint(error: &Error) -> Option<String> {
    if let Some(ContextValue::StyledStrs(tips)) = error.get(ContextKind::Suggested) {
        return tips.first().map(ToString::to_string);
    }
    let kinds = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let meant = kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(meant) => Some(meant.clone()),
        ContextValue::Strings(meant) => meant.first().cloned(),
        _ => None,
    })?;
    Some(format!("did you mean `{meant}`?"))
}

/// The global options, and those of the command that was typed.
fn options(tree: &Command, arguments: &[OsString]) -> Vec<String> {
    [tree]
        .into_iter()
        .chain(command(tree, arguments))
        .flat_map(Command::get_arguments)
        .filter_map(|arg| arg.get_long())
        .map(str::to_owned)
        .collect()
}

/// The command that was typed.
fn command<'a>(tree: &'a Command, arguments: &[OsString]) -> Option<&'a Command> {
    let words = arguments.iter().skip(1).take_while(|word| *word != "--").filter_map(|word| word.to_str());
    words.filter(|word| !word.starts_with('-')).find_map(|word| tree.find_subcommand(word))
}

/// The likeliest of `options`: the nearest by edits, else one that abbreviates what was typed.
fn nearest(typed: &str, options: &[String]) -> Option<String> {
    let edits = |option: &&String| strsim::damerau_levenshtein(typed, option);
    let near = options.iter().min_by_key(edits).filter(|option| edits(option) <= EDITS);
    let short =
        || options.iter().filter(|option| abbreviates(option, typed)).max_by_key(|option| option.len());
    near.or_else(short).cloned()
}

/// Whether `short` is `long` with characters left out, but not the first: `cmd` of `comand`.
fn abbreviates(short: &str, long: &str) -> bool {
    let mut rest = long.chars();
    short.chars().next() == long.chars().next() && short.chars().all(|c| rest.any(|other| other == c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_option_is_found_by_edits_or_as_an_abbreviation() {
        let options: Vec<_> = ["cmd", "env", "dir", "release", "health", "detach", "wait-window", "json"]
            .map(str::to_owned)
            .into();
        let table = [
            ("comand", Some("cmd")),
            ("command", Some("cmd")),
            ("directory", Some("dir")),
            ("realease", Some("release")),
            ("helth", Some("health")),
            ("jsn", Some("json")),
            ("wait-windw", Some("wait-window")),
            ("frobnicate", None),
        ];
        for (typed, meant) in table {
            assert_eq!(nearest(typed, &options).as_deref(), meant, "{typed}");
        }
    }
}
