//! What is executed: program, arguments and environment of a launch. Pure.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;

use super::{Launch, Whose, proc::TAG_VARIABLE};
use crate::config::{CommandLine, is_withheld};

type Env = BTreeMap<OsString, OsString>;

/// The directory in which the daemon was started. The app has its own.
const PLACE: [&str; 2] = ["PWD", "OLDPWD"];

/// The daemon's environment without what no app may see.
pub(super) fn scrub(env: Env) -> Env {
    env.into_iter().filter(|(name, value)| may_see(name, value)).collect()
}

fn may_see(name: &OsStr, value: &OsStr) -> bool {
    // Some shells export the machine's name as HOST, and an app would bind to it. An address is
    // kept.
    if name == "HOST" {
        return value.to_str().is_some_and(|host| host == "localhost" || host.parse::<IpAddr>().is_ok());
    }
    !is_withheld(name) && !PLACE.iter().any(|place| name == *place)
}

/// The whole environment of one run. What the operator gave wins over what the user's account says.
/// The port wins over everything: an app that listened elsewhere could not be reached.
pub(super) fn environment(base: &Env, whose: &Whose<'_>, launch: &Launch, tag: &str) -> Env {
    let mut env = base.clone();
    let mut set = |name: &str, value: &OsStr| drop(env.insert(name.into(), value.into()));
    if let Some(ids) = &launch.identity {
        set("USER", ids.name.as_ref());
        set("LOGNAME", ids.name.as_ref());
        set("HOME", ids.home.as_os_str());
    }
    if let Some(directory) = &launch.directory {
        set("PWD", directory.as_os_str());
    }
    if launch.port.number().is_none() {
        // Where the daemon has such a variable, it says nothing about this process.
        env.remove(OsStr::new(&launch.port_env));
    }
    let mut set = |name: &str, value: &OsStr| drop(env.insert(name.into(), value.into()));
    for (name, value) in &launch.env {
        set(name, value.as_ref());
    }
    if let Some(port) = launch.port.number() {
        set(&launch.port_env, port.to_string().as_ref());
    }
    set("PORTOK_INSTANCE", whose.instance.as_ref());
    if let Some(app) = whose.app {
        set("PORTOK_APP", app.as_ref());
    }
    set("PORTOK_RELEASE", launch.release.as_ref());
    if let Some(process) = &launch.process {
        set("PORTOK_PROCESS", OsStr::new(&**process));
    }
    if let Some(replica) = launch.replica {
        set("PORTOK_REPLICA", replica.to_string().as_ref());
    }
    set(TAG_VARIABLE, tag.as_ref());
    env.entry("HOST".into()).or_insert_with(|| "127.0.0.1".into());
    env
}

/// Program and arguments, with the port filled in, where there is one.
pub(super) fn words(command: &CommandLine, port: Option<u16>) -> Vec<String> {
    let fill = |text: &str| match port {
        Some(port) => text.replace("{port}", &port.to_string()),
        None => text.to_owned(),
    };
    match command {
        CommandLine::Shell(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), fill(text)],
        CommandLine::Exec(words) => words.iter().map(|word| fill(word)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Ids;
    use crate::supervisor::port::{Port, Ports};

    fn launch() -> Launch {
        Launch {
            release: "r1".into(),
            replica: Some(0),
            process: None,
            step: None,
            command: CommandLine::Exec(vec!["app".into()]),
            directory: None,
            env: BTreeMap::new(),
            identity: None,
            limits: crate::config::Limits::default(),
            port_env: "PORT".into(),
            port: Port::Own(Ports::default().lease(false).unwrap()),
        }
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_port_is_filled_in_everywhere() {
        let exec = CommandLine::Exec(vec!["a".into(), "-p={port}".into(), "{port}{port}".into()]);
        assert_eq!(words(&exec, Some(80)), ["a", "-p=80", "8080"]);
        assert_eq!(words(&exec, None), ["a", "-p={port}", "{port}{port}"]);
        assert_eq!(words(&CommandLine::Shell("app {port}".into()), Some(7)), ["/bin/sh", "-c", "app 7"]);
        assert!(words(&CommandLine::Exec(Vec::new()), Some(7)).is_empty());
    }

    #[test]
    fn what_is_the_daemons_own_goes() {
        let mut given =
            env(&[("PATH", "/bin"), ("LANG", "C"), ("ADMINISTRATOR", "kept"), ("LISTENER", "kept")]);
        let kept = given.clone();
        for name in PLACE.into_iter().chain(crate::config::variables()).chain([
            "ADMIN_TOKEN",
            "PORTOK_RUN",
            "WATCHDOG_USEC",
            "LISTEN_PID",
            "NOTIFY_SOCKET",
            "JOURNAL_STREAM",
            "CREDENTIALS_DIRECTORY",
        ]) {
            given.insert(name.into(), "secret".into());
        }
        assert_eq!(scrub(given), kept);
    }

    #[test]
    fn a_host_is_kept_when_it_is_an_address() {
        for (value, kept) in [("0.0.0.0", true), ("::", true), ("localhost", true), ("web-17", false)] {
            assert_eq!(scrub(env(&[("HOST", value)])).len(), usize::from(kept), "{value}");
        }
    }

    #[test]
    fn the_run_is_named_and_the_operator_wins_except_over_the_port() {
        let mut launch = launch();
        launch.identity =
            Some(Ids { uid: 1, gid: 1, groups: vec![], name: "api".into(), home: "/srv/api".into() });
        launch.directory = Some("/srv".into());
        launch.env = [("HOME", "/else"), ("PORT", "1"), ("HOST", "0.0.0.0"), ("PORTOK_RUN", "x")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let web = Whose { instance: "web", app: None };
        let built =
            environment(&env(&[("HOME", "/root"), ("USER", "root"), ("A", "b")]), &web, &launch, "tag");
        let port = launch.port.number().unwrap().to_string();
        let expected = env(&[
            ("A", "b"),
            ("HOME", "/else"),
            ("HOST", "0.0.0.0"),
            ("LOGNAME", "api"),
            ("PORT", &port),
            ("PORTOK_INSTANCE", "web"),
            ("PORTOK_RELEASE", "r1"),
            ("PORTOK_REPLICA", "0"),
            ("PORTOK_RUN", "tag"),
            ("PWD", "/srv"),
            ("USER", "api"),
        ]);
        assert_eq!(built, expected);
    }

    #[test]
    fn the_port_goes_where_it_is_asked_for_and_the_host_is_loopback() {
        let mut launch = launch();
        launch.port_env = "APP_PORT".into();
        let built = environment(&Env::new(), &Whose { instance: "edge", app: Some("web") }, &launch, "tag");
        assert_eq!(
            (built.get(OsStr::new("PORTOK_INSTANCE")), built.get(OsStr::new("PORTOK_APP"))),
            (Some(&"edge".into()), Some(&"web".into()))
        );
        assert_eq!(built[OsStr::new("APP_PORT")], *launch.port.number().unwrap().to_string());
        assert!(!built.contains_key(OsStr::new("PORT")));
        assert_eq!(built[OsStr::new("HOST")], *"127.0.0.1");
        (launch.port, launch.replica, launch.process) = (Port::None, None, Some("worker".into()));
        let built = environment(
            &env(&[("APP_PORT", "1")]),
            &Whose { instance: "edge", app: Some("web") },
            &launch,
            "tag",
        );
        assert_eq!(built[OsStr::new("PORTOK_PROCESS")], *"worker");
        assert!(["APP_PORT", "PORTOK_REPLICA"].iter().all(|name| !built.contains_key(OsStr::new(name))));
    }
}
