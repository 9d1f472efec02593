//! Where socket, pipes and state lie by default.

use std::path::PathBuf;

use super::*;

#[test]
fn the_state_lies_where_systemd_says_or_where_it_can_be_written() {
    let mut case = Case::file("");
    case.set("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
    assert_eq!(case.good().state_file, Path::new("/var/lib/a/api.json"));
    case.sources.env.remove("STATE_DIRECTORY");

    // Another user: its folder cannot be written.
    let owned = case.path("state");
    mode(&owned, 0o755);
    let stranger = Who { uid: case.who.uid + 4242, gid: 4242, groups: Vec::new() };
    case.sources.client = true; // whose files are read does not matter here
    case.set("HOME", "/home/somebody");
    let config = load_as(&case.sources, &stranger, &case.host).unwrap();
    assert_eq!(config.state_file, Path::new("/home/somebody/.local/state/portok/api.json"));
    assert!(warned(&config, &format!("cannot write {}", owned.display())), "{:?}", config.warnings);
    case.set("XDG_STATE_HOME", "/home/somebody/state");
    let config = load_as(&case.sources, &stranger, &case.host).unwrap();
    assert_eq!(config.state_file, Path::new("/home/somebody/state/portok/api.json"));

    let group = Who { groups: vec![fs::metadata(&owned).unwrap().gid()], ..stranger };
    mode(&owned, 0o775);
    assert_eq!(load_as(&case.sources, &group, &case.host).unwrap().state_file, owned.join("api.json"));
    case.set("PORTOK_STATE_DIR", &owned.join("not/yet").display().to_string());
    assert_eq!(
        load_as(&case.sources, &group, &case.host).unwrap().state_file,
        owned.join("not/yet/api.json")
    );
}

#[test]
fn the_default_socket() {
    let socket =
        |uid, dir: Option<&str>| default_socket("api", uid, dir.map(Path::new)).display().to_string();
    assert_eq!(socket(0, Some("/run/user/0")), "/run/portok/api/admin.sock");
    assert_eq!(socket(1000, Some("/run/user/1000")), "/run/user/1000/portok/api/admin.sock");
    assert_eq!(socket(1000, None), "/tmp/portok-1000/api/admin.sock");
    assert_eq!(socket(1000, Some("relative")), "/tmp/portok-1000/api/admin.sock");
    let long = format!("/{}", "x".repeat(100));
    assert_eq!(socket(1000, Some(&long)), "/tmp/portok-1000/api/admin.sock");
    let longest = default_socket(&"n".repeat(64), u32::MAX, None);
    assert!(longest.as_os_str().len() <= 107);
}

#[test]
fn in_the_foreground_nothing_is_required_but_a_command() {
    let mut case = Case::new();
    case.sources.overrides.foreground = true;
    let run = case.path("run");
    case.set("XDG_RUNTIME_DIR", &run.display().to_string());
    case.who.uid = case.who.uid.max(1);
    mode(&run, 0o777);
    let problems = case.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("--cmd"), "{problems:?}");

    case.sources.overrides.command = Some(CommandLine::Shell("node app.js".to_owned()));
    case.set("INITIAL_TARGET_PORT", "9999");
    let config = case.good();
    assert_eq!((config.app.app.target, config.admin.token), (None, None));
    assert_eq!(config.run_dir, run.join("portok/default"));
    assert_eq!(config.state_file, run.join("portok/default/state.json"));
    assert_eq!(config.admin.socket, Some(run.join("portok/default/admin.sock")));
    assert!(config.admin.public);
    assert_eq!(config.listen, ["127.0.0.1:3000".parse().unwrap()]);
    assert_eq!((config.app.drain.affinity, config.proxy.forwarded), (Affinity::Request, Forwarded::Trusted));
    assert_eq!(config.app.limits.requests_per_address, Some(512), "as with a file");
    case.set("LISTEN_PORT", "4000");
    case.set("DRAIN_AFFINITY", "connection");
    let config = case.good();
    assert_eq!(config.listen, ["127.0.0.1:4000".parse().unwrap()]);
    assert_eq!(config.app.drain.affinity, Affinity::Connection);
    case.sources.overrides.listen = Some("0.0.0.0:5000".to_owned());
    assert_eq!(case.good().listen, ["0.0.0.0:5000".parse().unwrap()]);

    // A runtime folder that cannot be written, as after `su`.
    mode(&run, 0o700);
    case.who = Who { uid: fs::metadata(&run).unwrap().uid() + 77, gid: 77, groups: Vec::new() };
    let config = case.good();
    assert_eq!(config.run_dir, PathBuf::from(format!("/tmp/portok-{}/default", case.who.uid)));
}

#[test]
fn the_folder_that_systemd_made_for_another_user_is_roots_default() {
    let mut case = Case::file("");
    case.who.uid = 4711;
    case.set("RUNTIME_DIRECTORY", "/run/other:/run/portok/api");
    assert_eq!(case.good().run_dir, PathBuf::from("/run/portok/api"));
    case.set("RUNTIME_DIRECTORY", "/run/other");
    assert_eq!(case.good().run_dir, PathBuf::from("/tmp/portok-4711/api"), "nobody would look there");
}
