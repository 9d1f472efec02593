//! The texts of the systemd units: adapts the repository's units to this machine, and reads the
//! installed ones. Pure.

use std::path::{Path, PathBuf};

use super::places::{CONFIG, Places};

/// The service template of all instances.
pub(crate) const SERVICE_NAME: &str = "portok@.service";
/// The socket template. An instance may do without a socket unit.
pub(crate) const SOCKET_NAME: &str = "portok@.socket";
/// Where `init --user` writes the user: a drop-in, so that it also applies to a package's unit.
pub(crate) const USER_DROP_IN: &str = "portok@.service.d/10-user.conf";

/// The name of the drop-in that hardens the unit of one instance.
pub(crate) const HARDENED: &str = "50-hardened.conf";

const SERVICE: &str = include_str!("../../systemd/portok@.service");
const SOCKET: &str = include_str!("../../systemd/portok@.socket");
const UNMANAGED: &str = include_str!("../../systemd/portok@.service.d/unmanaged.conf");

/// The first line of every file that `init` writes. portok may replace and remove such a file.
const MARK: &str =
    "# Written by `portok init`, which replaces it; changes belong into a drop-in: systemctl edit";

/// The first line of the drop-ins that `add` writes. portok may replace and remove them too.
const MARK_OF_ADD: &str = "# Written by `portok add`, brought up to date by `portok init`; a drop-in with a later name wins over it";

/// The folder of the programs in the repository's units.
const PROGRAMS: &str = "/usr/bin";

/// The unit of an instance.
pub(crate) fn service_of(instance: &str) -> String {
    format!("portok@{instance}.service")
}

/// The socket unit of an instance.
pub(crate) fn socket_of(instance: &str) -> String {
    format!("portok@{instance}.socket")
}

/// The path of the hardening drop-in of an instance, relative to the folder of units.
pub(crate) fn hardened_of(instance: &str) -> String {
    format!("{}.d/{HARDENED}", service_of(instance))
}

/// The text of the hardening drop-in.
pub(crate) fn hardened() -> String {
    format!("{MARK_OF_ADD}\n{UNMANAGED}")
}

/// Whether `text` is a file that `init` or `add` wrote.
pub(crate) fn is_ours(text: &str) -> bool {
    [MARK, MARK_OF_ADD].iter().any(|mark| text.starts_with(mark))
}

/// The service unit for programs in the folder of `portokd` and the folders of `places`.
///
/// # Errors
/// A path contains characters that a unit cannot hold.
pub(crate) fn service(portokd: &Path, places: &Places) -> Result<String, String> {
    adapt(SERVICE, portokd, places)
}

/// The text of the socket unit. It names no path.
pub(crate) fn socket() -> String {
    format!("{MARK}\n{SOCKET}")
}

fn adapt(template: &str, portokd: &Path, places: &Places) -> Result<String, String> {
    let programs = word(portokd.parent().unwrap_or(Path::new("/")))?;
    let (config, state) = (word(&places.config)?, word(&places.state)?);
    let mut text = format!("{MARK}\n");
    for line in template.lines() {
        if line.starts_with('#') || line.is_empty() {
            text.push_str(line);
        } else if places.is_state_moved() && line.starts_with("StateDirectory") {
            // systemd's own state folders are always below /var/lib.
            continue;
        } else {
            let line = line.replace(&format!("{PROGRAMS}/portok"), &format!("{programs}/portok"));
            text.push_str(&line.replace(&format!("{CONFIG}/"), &format!("{config}/")));
        }
        text.push('\n');
        if line == "[Service]" {
            if places.is_config_moved() {
                text.push_str(&format!("Environment=PORTOK_CONFIG_DIR={config}\n"));
            }
            if places.is_state_moved() {
                text.push_str(&format!("Environment=PORTOK_STATE_DIR={state}\nReadWritePaths={state}\n"));
            }
        }
    }
    Ok(text)
}

/// A path for a unit. A character that systemd would interpret is refused.
fn word(path: &Path) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/._-+@~,:".contains(c);
    match path.to_str() {
        Some(text) if text.chars().all(fits) => Ok(text),
        _ => Err(format!("the path {} cannot stand in a unit file", path.display())),
    }
}

/// The text of the drop-in by which portokd runs as `user`.
pub(crate) fn drop_in(user: &str) -> String {
    format!(
        "{MARK}\n\n[Service]\nUser={user}\n# Ports below 1024 without being root.\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
    )
}

/// The program that a unit starts.
pub(crate) fn program(text: &str) -> Option<PathBuf> {
    let line = values(text, "ExecStart").last()?;
    let words = line.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    let program = match words.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => words.split_whitespace().next(),
    };
    program.map(PathBuf::from)
}

/// The user named by the last of `texts`, the unit and its drop-ins, that names one.
pub(crate) fn user<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<String> {
    let last = texts.into_iter().filter_map(|text| values(text, "User").last()).last();
    last.filter(|user| !user.is_empty()).map(str::to_owned)
}

/// The limit of open files that a unit sets.
pub(crate) fn open_files(text: &str) -> Option<&str> {
    values(text, "LimitNOFILE").last()
}

/// Whether a daemon that was shut down by `portok shutdown` stays down.
pub(crate) fn stays_down(text: &str) -> bool {
    let code = crate::wire::exit::SHUT_DOWN.to_string();
    values(text, "RestartPreventExitStatus").flat_map(str::split_whitespace).any(|word| word == code)
}

fn values<'t>(text: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    text.lines()
        .filter_map(move |line| Some(line.trim().strip_prefix(key)?.trim_start().strip_prefix('=')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(config: &str, state: &str) -> Places {
        Places {
            config: config.into(),
            state: state.into(),
            units: "/u".into(),
            packaged: Vec::new(),
            flavor: None,
        }
    }

    #[test]
    fn a_unit_of_today_keeps_a_daemon_down_that_was_shut_down() {
        let today = include_str!("../../systemd/portok@.service");
        assert!(stays_down(today));
        assert!(!stays_down(&today.replace("RestartPreventExitStatus=2 10", "RestartPreventExitStatus=2")));
        assert!(!stays_down(&today.replace("=2 10", "=2 100")));
    }

    #[test]
    fn the_usual_places_need_no_change() {
        let text = service(Path::new("/usr/bin/portokd"), &places("/etc/portok", "/var/lib/portok")).unwrap();
        assert_eq!(text, format!("{MARK}\n{SERVICE}"));
        assert!(is_ours(&text) && !is_ours(SERVICE));
        assert_eq!(program(&text).as_deref(), Some(Path::new("/usr/bin/portokd")));
    }

    #[test]
    fn moved_programs_and_folders_stand_in_the_unit() {
        let text = service(Path::new("/opt/p/portokd"), &places("/c", "/s")).unwrap();
        assert_eq!(program(&text).as_deref(), Some(Path::new("/opt/p/portokd")));
        assert!(text.contains("\nEnvironmentFile=-/c/%i.env\n"), "{text}");
        assert!(
            text.contains("[Service]\nEnvironment=PORTOK_CONFIG_DIR=/c\nEnvironment=PORTOK_STATE_DIR=/s\n")
        );
        let orders = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        assert!(!orders.contains("StateDirectory") && !orders.contains("/usr/bin/portok"), "{orders}");
    }

    #[test]
    fn a_path_cannot_add_orders_to_a_unit() {
        for bad in ["/a b", "/a\nUser=root", "/%i", "/$HOME", "/a\"b", "/a;b"] {
            let refused = service(Path::new("/usr/bin/portokd"), &places(bad, "/s"));
            assert!(refused.is_err(), "{bad:?}");
            assert!(service(&Path::new(bad).join("portokd"), &places("/c", "/s")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_a_unit_says_is_found() {
        assert_eq!(program("[Service]\nExecStart=\nExecStart=-/a/b --x\n"), Some("/a/b".into()));
        assert_eq!(program("ExecStart=@\"/a b/c\" d"), Some("/a b/c".into()));
        assert_eq!(program("[Service]\n# ExecStart=/a\n"), None);
        assert_eq!(user([SERVICE, &drop_in("deploy")]).as_deref(), Some("deploy"));
        assert_eq!(user(["User=a", "User="]), None);
        assert_eq!(user([SERVICE]), None);
        assert_eq!(open_files("LimitNOFILE=65536"), Some("65536"));
    }
}
