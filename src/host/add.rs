//! `portok add`: the configuration of a new instance.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::failure::{HostCode, HostFailure};
use super::files::{self, Existing, Readers};
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::report::HostReport;
use super::{harden, installed, named, ports, unit};

/// The random bytes of a token: too many to guess.
const TOKEN_BYTES: usize = 32;

/// What [`add`] is asked for.
#[derive(Debug)]
pub(crate) struct AddOptions {
    /// The new instance's name.
    pub(crate) name: String,
    /// The public port; `None` chooses one.
    pub(crate) port: Option<u16>,
    /// The port of an unmanaged app.
    pub(crate) target: Option<u16>,
    /// The command of a managed app, for `/bin/sh -c`.
    pub(crate) command: Option<String>,
    /// Where the command runs, as an absolute path.
    pub(crate) directory: Option<String>,
    /// The app's health path.
    pub(crate) health: Option<String>,
    /// Write `NAME.toml`.
    pub(crate) toml: bool,
    /// Write `NAME.env`.
    pub(crate) env: bool,
    /// Overwrite an instance of that name, and take ports that are in use.
    pub(crate) force: bool,
}

/// What the new instance is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct New<'a> {
    name: &'a str,
    listen: u16,
    app: NewApp<'a>,
    health: Option<&'a str>,
    /// The admin socket, if portokd's own user cannot use the default place.
    socket: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NewApp<'a> {
    /// A managed app: portok starts it.
    Managed { line: &'a str, directory: Option<String> },
    /// An unmanaged app on this port.
    Unmanaged(u16),
    /// No app yet: the first deploy brings its command.
    Later,
}

/// The files of an instance. Exactly one of them holds the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `NAME.toml` and `NAME.token`.
    Toml,
    /// `NAME.env`, as npm portok has it.
    Env,
}

/// Writes the configuration of a new instance.
///
/// # Errors
/// The instance exists already, a port is taken, or a file cannot be written.
pub(crate) fn add(places: &Places, options: &AddOptions) -> Result<HostReport, HostFailure> {
    let name = options.name.as_str();
    files::make_folder(&places.config)?;
    // Two `add` at once would choose the same free ports, or write files of both formats for one
    // name.
    let _alone = files::lock(&places.lock())?;
    let others = instances::all(places, Reading::Lenient)?;
    let (others, existing): (Vec<_>, Vec<_>) = others.into_iter().partition(|other| other.name != name);
    if let (Some(existing), false) = (existing.first(), options.force) {
        let message = format!("there is an instance `{name}` already: {}", existing.file_names());
        return Err(HostFailure::new(
            HostCode::Exists,
            message,
            "--force overwrites it; portok list shows all",
        ));
    }
    let is_toml = options.toml || (options.command.is_some() && !options.env);
    let listen = public_port(options, &others)?;
    let user = installed::user(places)?;
    let directory = directory(options)?;
    let new = New {
        name,
        listen,
        app: match &options.command {
            Some(line) => NewApp::Managed { line, directory },
            None if options.toml && options.target.is_none() => NewApp::Later,
            None => NewApp::Unmanaged(target_port(options, listen, &others)?),
        },
        health: options.health.as_deref(),
        socket: user.as_ref().map(|_| PathBuf::from(format!("/run/portok/{name}/admin.sock"))),
    };
    let format = if is_toml { Format::Toml } else { Format::Env };
    let readers = match (&user, format) {
        // A `.env` file is read by systemd itself.
        (Some(user), Format::Toml) => Readers::Group(user.gid.as_raw()),
        _ => Readers::Owner,
    };
    let mut report = HostReport::about(name);
    store(places, &new, format, readers, options.force, &mut report)?;
    harden::bring_about(places, name, matches!(new.app, NewApp::Unmanaged(_)), &mut report);
    what_next(places, &new, &mut report)?;
    Ok(report)
}

/// Writes the files of the instance. The secret comes first, so that a configuration never names a
/// missing token file.
fn store(
    places: &Places,
    new: &New<'_>,
    format: Format,
    readers: Readers,
    force: bool,
    report: &mut HostReport,
) -> Result<(), HostFailure> {
    let existing = if force { Existing::Replace } else { Existing::Keep };
    let file = |ending: &str| places.file(new.name, ending);
    let token = files::random_hex(TOKEN_BYTES)
        .map_err(|error| files::failed("get random bytes for", &file("token"), &error))?;
    let (wanted, left): (&[(&str, String)], &[&str]) = match format {
        Format::Toml => {
            (&[("token", format!("{token}\n")), ("toml", toml_text(new, &file("token")))], &["env"])
        }
        Format::Env => (&[("env", env_text(new, &token))], &["toml", "token"]),
    };
    let mut created: Vec<PathBuf> = Vec::new();
    for (ending, text) in wanted {
        let path = file(ending);
        let is_new = path.symlink_metadata().is_err();
        if let Err(failure) = files::write(&path, text, readers, existing) {
            // A token that replaced another one stays, because the existing configuration names it.
            for path in &created {
                drop(files::remove(path));
            }
            return Err(failure);
        }
        report.step(if is_new { "created" } else { "replaced" }, path.display());
        if is_new {
            created.push(path);
        }
    }
    for path in left.iter().filter(|_| force).map(|ending| file(ending)) {
        if files::remove(&path)? {
            report.step("removed", path.display());
        }
    }
    Ok(())
}

/// The app's directory, which must exist.
fn directory(options: &AddOptions) -> Result<Option<String>, HostFailure> {
    let Some(directory) = &options.directory else { return Ok(None) };
    match named::directory("--dir", Path::new(directory)) {
        Some(missing) => {
            let message = format!("`{}` was not added: {}", options.name, missing.text);
            Err(HostFailure::new(HostCode::Usage, message, missing.hint))
        }
        None => Ok(Some(directory.clone())),
    }
}

fn public_port(options: &AddOptions, others: &[Instance]) -> Result<u16, HostFailure> {
    let taken: BTreeSet<u16> = others.iter().flat_map(Instance::ports).collect();
    let Some(port) = options.port else {
        return ports::choose(ports::PUBLIC, &taken, ports::is_free).ok_or_else(|| none_free("--port"));
    };
    let has_it = others.iter().find(|other| other.ports().any(|taken| taken == port));
    let why = match has_it {
        Some(other) => format!("the instance `{}` has it", other.name),
        None if !ports::is_free(port) => "somebody listens on it".to_owned(),
        None => return Ok(port),
    };
    if options.force {
        return Ok(port);
    }
    Err(HostFailure::new(
        HostCode::InUse,
        format!("port {port} is taken: {why}"),
        "choose another one, or let portok choose: leave out --port; --force takes it all the same",
    ))
}

fn target_port(options: &AddOptions, listen: u16, others: &[Instance]) -> Result<u16, HostFailure> {
    if options.target == Some(listen) {
        return Err(HostFailure::new(
            HostCode::Usage,
            format!("--target {listen} is the public port itself"),
            "the app needs a port of its own, such as --target 8080",
        ));
    }
    let mut taken: BTreeSet<u16> = others.iter().flat_map(Instance::ports).collect();
    taken.insert(listen);
    // If something listens on a port that the operator named, it is taken to be the app.
    let chosen = options.target.or_else(|| ports::choose(ports::TARGETS, &taken, ports::is_free));
    chosen.ok_or_else(|| none_free("--target"))
}

fn none_free(option: &str) -> HostFailure {
    HostFailure::new(
        HostCode::Failed,
        "no port is free where portok looks for one",
        format!("name one: {option} PORT"),
    )
}

fn what_next(places: &Places, new: &New<'_>, report: &mut HostReport) -> Result<(), HostFailure> {
    let name = new.name;
    if installed::effective(places, unit::SERVICE_NAME)?.is_none() {
        report.next("portok init", "the systemd units, which are not there yet");
    }
    let health = new.health.unwrap_or("/health");
    let (app, way) = match &new.app {
        NewApp::Unmanaged(port) => ("your app", format!("has to listen on 127.0.0.1:{port}")),
        _ => ("the app", "has to listen on 127.0.0.1, on the port in $PORT".to_owned()),
    };
    report.note(format!("`{name}` answers on port {}", new.listen));
    report.note(format!("{app} {way}, and to answer {health} with 2xx (another path: --health)"));
    report.next(format!("portok enable {name} --now"), "start it, now and at every boot");
    report.next(format!("portok status {name}"), "look at it");
    match &new.app {
        NewApp::Unmanaged(_) => {
            report.next(format!("portok switch PORT --instance {name}"), "move traffic to the next version")
        }
        _ => report.next(format!("portok deploy --instance {name}"), "release the next version"),
    }
    Ok(())
}

fn toml_text(new: &New<'_>, token: &Path) -> String {
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "# The instance \"{name}\", written by `portok add`. An edit is loaded at once, a changed [app] is deployed.\n\
         # `portokd --check --instance {name}` shows every key with its value.\n\nlisten = {}\n",
        new.listen,
        name = new.name,
    );
    match &new.app {
        NewApp::Managed { line, directory } => {
            _ = write!(
                text,
                "\n[app]\n# Has to listen on 127.0.0.1, on the port in $PORT.\ncommand = {}\n",
                string(line)
            );
            _ = match directory {
                Some(directory) => writeln!(text, "directory = {}", string(directory)),
                None => writeln!(text, "# directory = \"/srv/{}\"", new.name),
            };
            _ = writeln!(text, "# user = \"{}\"    # default: the user of portokd", new.name);
        }
        NewApp::Unmanaged(port) => {
            _ = write!(text, "\n[app]\n# Somebody else starts it there.\ntarget = {port}\n")
        }
        NewApp::Later => _ = write!(text, "\n# [app]\n# command = \"node server.js\"\n"),
    }
    if let Some(path) = new.health {
        _ = write!(text, "\n[health]\npath = {}\n", string(path));
    }
    _ = write!(text, "\n[admin]\ntoken_file = {}\n", string(&token.display().to_string()));
    if let Some(socket) = &new.socket {
        _ = writeln!(text, "socket = {}", string(&socket.display().to_string()));
    }
    text
}

fn env_text(new: &New<'_>, token: &str) -> String {
    let mut text = format!(
        "# The instance \"{}\", written by `portok add`: the variables of npm portok, in systemd's syntax.\n\n",
        new.name
    );
    let mut set = |variable: &str, value: &str| _ = writeln!(text, "{variable}={}", env_word(value));
    set("INSTANCE_NAME", new.name);
    set("LISTEN_PORT", &new.listen.to_string());
    match &new.app {
        NewApp::Managed { line, .. } => set("APP_COMMAND", line),
        NewApp::Unmanaged(port) => set("INITIAL_TARGET_PORT", &port.to_string()),
        NewApp::Later => {}
    }
    if let Some(path) = new.health {
        set("HEALTH_PATH", path);
    }
    set("ADMIN_TOKEN", token);
    if let Some(socket) = &new.socket {
        set("ADMIN_UNIX_SOCKET", &socket.display().to_string());
    }
    text
}

/// A value in the syntax of systemd's `EnvironmentFile=` (systemd.exec(5)).
fn env_word(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+=".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut word = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            word.push('\\');
        }
        word.push(c);
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, CommandLine, Config, Overrides, Sources};

    const COMMAND: &str = "FOO='a b' node \"x.js\" --port=$PORT \\\n  `pwd`";

    fn new(app: NewApp<'static>) -> New<'static> {
        let socket = Some("/run/portok/api/admin.sock".into());
        New { name: "api", listen: 3000, app, health: Some("/ready"), socket }
    }

    fn loaded(new: &New<'_>, format: Format) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().to_owned();
        let (state, units) = (config.clone(), config.clone());
        let places = Places { state, units, packaged: Vec::new(), config, flavor: None };
        let mut report = HostReport::about("api");
        store(&places, new, format, Readers::Owner, false, &mut report).unwrap();
        let again = store(&places, new, format, Readers::Owner, false, &mut report).unwrap_err();
        assert_eq!(again.code, HostCode::Exists);
        let mut env = match format {
            Format::Env => config::read_env_file(&places.file("api", "env"), None, None).unwrap(),
            Format::Toml => Default::default(),
        };
        env.insert("PORTOK_CONFIG_DIR".into(), places.config.display().to_string());
        let overrides = Overrides::default();
        config::load(&Sources { instance: Some("api".into()), env, overrides, ..Sources::default() }).unwrap()
    }

    #[test]
    fn what_is_written_is_what_the_daemon_reads() {
        for format in [Format::Toml, Format::Env] {
            let config = loaded(&new(NewApp::Managed { line: COMMAND, directory: None }), format);
            assert_eq!((config.name.as_str(), config.listen[0].port()), ("api", 3000));
            assert_eq!(config.app.app.command, Some(CommandLine::Shell(COMMAND.into())));
            assert_eq!(config.app.health.path, "/ready");
            assert_eq!(config.admin.token.unwrap().expose().len(), 2 * TOKEN_BYTES);
            assert_eq!(config.admin.socket.unwrap(), Path::new("/run/portok/api/admin.sock"));
            let config = loaded(&new(NewApp::Unmanaged(8080)), format);
            assert_eq!((config.app.app.target, &config.app.app.command), (Some(8080), &None));
        }
        let directory = Some("/srv/a \"b\"".to_owned());
        let config =
            loaded(&new(NewApp::Managed { line: "true", directory: directory.clone() }), Format::Toml);
        assert_eq!(config.app.app.directory, directory.map(PathBuf::from));
        assert_eq!(loaded(&new(NewApp::Later), Format::Toml).app.app.target, None);
    }

    #[test]
    fn plain_values_stay_as_they_are() {
        assert_eq!(env_word("/health"), "/health");
        assert_eq!(env_word("a b"), "\"a b\"");
        assert_eq!(env_word("$A`\"\\"), "\"\\$A\\`\\\"\\\\\"");
    }
}
