//! Turns another tool's configuration into one of portok, for `portok import`.
//!
//! A format's converter is pure: it gets the text, and gives the TOML and what it found out on the
//! way. It never guesses where a guess could send a request to the wrong app; what has no
//! counterpart is said, each thing with its place. Nothing is written: the operator reads the TOML
//! and puts it where it belongs.
//!
//! - `hipache`, `nfork`, `procfile`, `pm2`: one file a format; `hipache_redis`: where hipache finds
//!   Redis; `pm2_app`, `pm2_keys`: one app of pm2's, and its keys;
//! - `source`: reads what is imported; `fields`: the fields of a JSON object, by kind;
//! - `findings`: what is wrong with the source, and what is lost;
//! - `apps`: the names and hosts of several apps; `toml`: writes the TOML.

mod apps;
mod fields;
mod findings;
mod hipache;
mod hipache_redis;
mod nfork;
mod pm2;
mod pm2_app;
mod pm2_keys;
mod procfile;
mod source;
#[cfg(test)]
mod tests;
mod toml;

use serde::Serialize;

use self::findings::Findings;
pub(crate) use self::source::Source;
use super::failure::{HostCode, HostFailure};
use crate::plain::plain;

/// The most problems that are told.
const PROBLEMS_MAX: usize = 20;

/// Whose configuration is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// hipache's `config.json`, or Concussion's.
    Hipache,
    /// `nfork.json`.
    Nfork,
    /// A `Procfile`.
    Procfile,
    /// An ecosystem of pm2, in JSON.
    Pm2,
}

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Imported {
    /// The same in portok's terms.
    pub(crate) toml: String,
    /// What has no counterpart, or is done in another way: `place: what`.
    pub(crate) notes: Vec<String>,
}

/// Converts `source`.
///
/// # Errors
/// It is not of this format, or nothing in it can be served. All problems come at once.
pub(crate) fn import(format: Format, source: &Source) -> Result<Imported, HostFailure> {
    let mut findings = Findings::default();
    let toml = match format {
        Format::Hipache => hipache::convert(source, &mut findings),
        Format::Nfork => nfork::convert(source, &mut findings),
        Format::Procfile => procfile::convert(source, &mut findings),
        Format::Pm2 => pm2::convert(source, &mut findings),
    };
    let Findings { mut problems, notes } = findings;
    if problems.len() > PROBLEMS_MAX {
        let more = problems.split_off(PROBLEMS_MAX).len();
        problems.push(format!("and {more} more"));
    }
    match toml {
        Some(toml) if problems.is_empty() => {
            let (name, from) = (format.name(), plain(source.name()));
            let toml = format!("# Written by `portok import {name}` from {from}.\n{toml}");
            Ok(Imported { toml, notes })
        }
        _ => Err(HostFailure {
            code: HostCode::Invalid,
            message: format!("cannot import {} as {}", source.name(), format.expected()),
            causes: problems,
            hint: format.hint().map(str::to_owned),
        }),
    }
}

impl Format {
    /// As the command line calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Hipache => "hipache",
            Self::Nfork => "nfork",
            Self::Procfile => "procfile",
            Self::Pm2 => "pm2",
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Hipache => "a configuration of hipache",
            Self::Nfork => "a configuration of nfork",
            Self::Procfile => "a Procfile",
            Self::Pm2 => "a pm2 ecosystem in JSON",
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Hipache | Self::Nfork | Self::Procfile => None,
            Self::Pm2 => Some(
                "of JavaScript make JSON: node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))' | portok import pm2 -",
            ),
        }
    }
}
