//! Reads the sources and validates them: the one way to a [`Config`].

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use super::env::Env;
use super::files::{self, Content, Owner, Who};
use super::keys;
use super::limits::Host;
use super::paths;
use super::raw::{self, Names, Problem};
use super::read::{Given, Reader};
use super::several::{self, Folder};
use super::validate::validate;
use super::values;
use super::{Config, ConfigErrors, Sources};

/// Reads and validates a configuration. Changes nothing.
///
/// The file is `sources.file`, or else `<config dir>/<instance>.toml` if that exists. Without a
/// file the environment alone configures. Beside the file, every file of the folder `<instance>.d`
/// is an app, if the instance has several; what is wrong with one of those is no error of the
/// whole.
///
/// # Errors
/// Every problem at once: those of the file in its order, then those of environment and flags. If
/// the file cannot be read, may be written by others or is not TOML, that is the only problem.
pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
    load_as(sources, &Who::current(), &Host::current())
}

pub(super) fn load_as(sources: &Sources, who: &Who, host: &Host) -> Result<Config, ConfigErrors> {
    let read = read_file(sources, who).map_err(|problem| ConfigErrors { problems: vec![problem] })?;
    let (file, content) = match &read {
        Some((file, content)) => (Some(file.as_path()), Some(content)),
        None => (None, None),
    };
    let parsed = match (file, content) {
        (Some(file), Some(content)) => Some(raw::parse(file, &content.text, keys::WORDS)),
        _ => None,
    };
    let (raw, problems) = match parsed.transpose() {
        Ok(Some((raw, problems))) => (Some(raw), problems),
        Ok(None) => (None, Vec::new()),
        Err(Problem { text, .. }) => return Err(ConfigErrors { problems: vec![text] }),
    };

    let given = Given { sources, file, who, host, further: RefCell::default() };
    let folder = file.and_then(|file| Folder::look(file, &given));
    let section = raw.as_ref().map(|raw| raw.whole(Names::Own));
    let mut reader = Reader::new(&given, section, keys::variable_of, problems);
    let shape = several::shape(&mut reader, raw.as_ref(), folder.as_ref());
    let mut config = validate(&mut reader, shape);
    if let Some(raw) = &raw {
        several::read(&mut reader, &mut config, raw, folder);
    }
    if let (Some(file), true) = (file, content.is_some_and(|content| content.world_readable))
        && reader.in_file("admin.token")
    {
        reader.warnings.push(format!(
            "admin.token: everybody may read {file}; run: chmod o-r {file}, or use admin.token_file",
            file = file.display()
        ));
    }
    sources.further.publish(given.further.take().into_iter().collect());
    let (mut problems, warnings) = reader.finish();
    if let (None, Some(name), false) = (file, sources.instance.as_deref(), problems.is_empty()) {
        let file = instance_file(sources, name);
        let folder = paths::apps_folder(&file, Env(&sources.env));
        let (place, needs) = (file.display(), "which may have few keys, or none");
        problems.push(match folder.is_dir() {
            true => format!("there is no {place}: the apps in {} need this file, {needs}", folder.display()),
            false => format!("there is no {place}: the environment alone configures this instance"),
        });
    }
    config.warnings = warnings;
    if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems }) }
}

fn read_file(sources: &Sources, who: &Who) -> Result<Option<(PathBuf, Content)>, String> {
    if let Some(name) = sources.instance.as_deref().filter(|name| !values::is_instance_name(name)) {
        return Err(format!("--instance = {name:?}: expected {}", values::NAME_EXPECTED));
    }
    if let Some(flavor) = Env(&sources.env).flavor().filter(|flavor| !values::is_instance_name(flavor)) {
        return Err(format!("PORTOK_FLAVOR = {flavor:?}: expected {}", values::NAME_EXPECTED));
    }
    let Some(file) = file_of(sources) else { return Ok(None) };
    let file = std::path::absolute(&file).unwrap_or(file);
    match files::read(&file, files::CONFIG_MAX, who, Owner::of_configuration(sources.client)) {
        Ok(content) => Ok(Some((file, content))),
        Err(error) if sources.file.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&file, &error)),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    format!("{}: cannot read the configuration file: {error}", file.display())
}

/// The file that a configuration comes from, or would come from once it is there. `None`: it never
/// comes from a file.
pub fn file_of(sources: &Sources) -> Option<PathBuf> {
    match (&sources.file, &sources.instance) {
        (Some(file), _) => Some(paths::flavored(file, Env(&sources.env))),
        (None, Some(name)) => Some(instance_file(sources, name)),
        (None, None) => None,
    }
}

/// Where the file of the instance `name` lies, whether or not there is one.
pub fn instance_file(sources: &Sources, name: &str) -> PathBuf {
    let env = Env(&sources.env);
    paths::flavored(&env.config_dir().join(format!("{name}.toml")), env)
}
