//! Where an instance's files lie, and by default its socket, pipes and state.
//!
//! Depends on names and the environment, and on which folders can be written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::env::Env;
use super::files::Who;
use super::values::SOCKET_PATH_MAX;

/// A further file or folder of the instance with this state file: `ending` in place of its `.json`,
/// or behind its name.
pub fn beside_state_file(state_file: &Path, ending: &str) -> PathBuf {
    let whole = state_file.as_os_str();
    let mut path = whole.as_bytes().strip_suffix(b".json").map_or(whole, OsStr::from_bytes).to_owned();
    path.push(ending);
    path.into()
}

/// The default admin socket of the instance `name` whose daemon runs as `uid`.
///
/// Root's is under `/run/portok`. Another user's is under `$XDG_RUNTIME_DIR/portok`
/// (`xdg_runtime_dir`), or, if that is relative or too long for a unix socket, under
/// `/tmp/portok-<uid>`.
pub fn default_socket(name: &str, uid: u32, xdg_runtime_dir: Option<&Path>) -> PathBuf {
    if uid == 0 {
        return socket_in("/run/portok", name);
    }
    xdg_runtime_dir
        .filter(|dir| dir.is_absolute())
        .map(|dir| socket_in(dir.join("portok"), name))
        .filter(|socket| socket.as_os_str().len() <= SOCKET_PATH_MAX)
        .unwrap_or_else(|| temporary_socket(name, uid))
}

fn temporary_socket(name: &str, uid: u32) -> PathBuf {
    socket_in(format!("/tmp/portok-{uid}"), name)
}

fn socket_in(folder: impl AsRef<Path>, name: &str) -> PathBuf {
    folder.as_ref().join(name).join("admin.sock")
}

/// The file that is read in place of `file`: `edge_test.toml` for `edge.toml` where the environment
/// names the flavor `test`. A file that has the flavor in its name already is read itself.
pub(super) fn flavored(file: &Path, env: Env<'_>) -> PathBuf {
    let Some(flavor) = env.flavor() else { return file.to_owned() };
    let stem = file.file_stem().map(OsStr::to_string_lossy).unwrap_or_default();
    if stem.ends_with(&format!("_{flavor}")) {
        return file.to_owned();
    }
    file.with_file_name(format!("{stem}_{flavor}.toml"))
}

/// What an instance is called by its `file`: the stem without the flavor.
pub(super) fn stem(file: &Path, env: Env<'_>) -> String {
    let stem = file.file_stem().map(OsStr::to_string_lossy).unwrap_or_default();
    let flavor = env.flavor().map(|flavor| format!("_{flavor}"));
    flavor.and_then(|flavor| stem.strip_suffix(&flavor)).unwrap_or(&stem).to_owned()
}

/// The folder beside `file` in which every file is an app.
pub(super) fn apps_folder(file: &Path, env: Env<'_>) -> PathBuf {
    file.with_file_name(format!("{}.d", stem(file, env)))
}

/// The file of the instance whose app's file `file` is: `edge.toml` for `edge.d/api.toml`. `None`:
/// there is no such instance.
pub fn instance_of_app_file(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    let folder = file.parent()?;
    let stem = folder.file_name()?.to_str()?.strip_suffix(".d")?;
    Some(folder.with_file_name(format!("{stem}.toml"))).filter(|instance| instance.is_file())
}

/// The folder of the default socket, which also holds the pipes of the apps.
///
/// If systemd made root's default folder for a daemon with a `User=` of its own, it is that one,
/// because everybody looks for the socket there. In the foreground it is the user's own runtime
/// folder, root's too, or else the temporary folder.
pub(super) fn run_dir(name: &str, who: &Who, env: Env<'_>, foreground: bool) -> PathBuf {
    let runtime = env.folder("XDG_RUNTIME_DIR");
    let by_root = Path::new("/run/portok").join(name);
    let made =
        env.get("RUNTIME_DIRECTORY").is_some_and(|dirs| dirs.split(':').any(|dir| by_root == Path::new(dir)));
    let socket = if foreground {
        let own = runtime.filter(|dir| dir.is_absolute() && who.can_write(dir));
        own.map(|dir| socket_in(dir.join("portok"), name))
            .filter(|socket| socket.as_os_str().len() <= SOCKET_PATH_MAX)
            .unwrap_or_else(|| temporary_socket(name, who.uid))
    } else if made {
        return by_root;
    } else {
        default_socket(name, who.uid, runtime)
    };
    socket.parent().unwrap_or(Path::new("/tmp")).to_owned()
}

/// The default state file, with a warning if it is not where such files usually are.
pub(super) fn state_file(name: &str, who: &Who, env: Env<'_>) -> (PathBuf, Option<String>) {
    let file = format!("{name}.json");
    // systemd separates several folders by colons (systemd.exec(5)).
    let by_systemd = env.get("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').find(|dir| !dir.is_empty()));
    if let Some(folder) = by_systemd {
        return (Path::new(folder).join(file), None);
    }
    let by_default = env.state_dir();
    if who.uid == 0 || who.can_write(&by_default) {
        return (by_default.join(file), None);
    }
    let own = env
        .folder("XDG_STATE_HOME")
        .map(Path::to_owned)
        .or_else(|| env.folder("HOME").map(|home| home.join(".local/state")));
    let Some(own) = own else { return (by_default.join(file), None) };
    let state_file = own.join("portok").join(file);
    let warning = format!(
        "state_file: uid {} cannot write {}, the state is kept in {}",
        who.uid,
        by_default.display(),
        state_file.display()
    );
    (state_file, Some(warning))
}
