//! What makes a host ready: `init`, `add`, completions and man pages.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::{Host, mode, steps};
use crate::harness::command::{PORTOK, PORTOKD, Running};
use crate::harness::{assert_at, assert_mentions};

#[test]
fn init_prepares_a_host_and_a_second_time_changes_nothing() {
    let host = Host::new();
    fs::remove_dir(host.path("state")).unwrap();
    let told = host.json(&["init", "--dry-run"], 0);
    assert_at(&told, "/dryRun", true);
    assert!(!host.path("units").exists() && !host.path("state").exists(), "a dry run does nothing");
    assert!(host.asked().is_empty());
    let dry = host.portok(&["init", "--dry-run"]).ended(0).out;
    assert_mentions(
        &dry,
        &["portok@.service:\n", &format!("\n  ExecStart={PORTOKD} --instance=%i\n"), "[Socket]"],
    );
    assert_mentions(told["steps"].to_string().as_str(), &["ExecStart="]);

    let done = host.json(&["init"], 0);
    assert!(!done.to_string().contains("ExecStart="), "what is done lies there to be read");
    assert_eq!(steps(&done), steps(&told), "it does what it told");
    assert_eq!(host.asked(), ["daemon-reload"]);
    let unit = fs::read_to_string(host.path("units/portok@.service")).unwrap();
    assert_mentions(&unit, &[&format!("\nExecStart={PORTOKD} --instance=%i\n")]);
    assert_mentions(&unit, &[&format!("\nEnvironment=PORTOK_CONFIG_DIR={}\n", host.path("conf").display())]);
    assert!(host.path("units/portok@.socket").exists());
    assert_eq!(mode(&host.path("state")), 0o755);

    let again = host.json(&["init"], 0);
    assert!(steps(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
    assert!(host.asked().is_empty());
    let said = host.portok(&["init"]).ended(0);
    assert_mentions(&said.out, &["unchanged", "next:", "portok add "]);
}

#[test]
fn init_gives_portokd_a_user_and_takes_it_back() {
    let host = Host::new();
    host.portok(&["init", "--user", "nobody"]).ended(0);
    let drop_in = host.path("units/portok@.service.d/10-user.conf");
    let text = fs::read_to_string(&drop_in).unwrap();
    assert_mentions(&text, &["\nUser=nobody\n", "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"]);
    host.portok(&["init"]).ended(0);
    assert!(drop_in.exists(), "a choice stays until another is made");
    host.portok(&["init", "--user", "root"]).ended(0);
    assert!(!drop_in.exists());
    assert_eq!(host.asked(), ["daemon-reload", "daemon-reload"]);
    if nix::unistd::geteuid().is_root() {
        host.portok(&["add", "old", "--cmd", "true"]).ended(0);
        let told = host.json(&["init", "--user", "nobody"], 0);
        assert_at(&host.json(&["doctor"], 0), "/ok", true);
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        host.portok(&["add", "new", "--cmd", "true"]).ended(0);
        for file in ["old.toml", "old.token", "new.toml", "new.token"] {
            assert_eq!(mode(&host.config(file)), 0o640, "{file}: {told:#}");
            assert_eq!(fs::metadata(host.config(file)).unwrap().gid(), nobody.gid.as_raw(), "{file}");
        }
        assert_mentions(
            &fs::read_to_string(host.config("new.toml")).unwrap(),
            &["/run/portok/new/admin.sock"],
        );
        // A file of that user's own is theirs to use, though root would not use it.
        std::os::unix::fs::chown(host.config("new.toml"), Some(nobody.uid.as_raw()), None).unwrap();
        assert_at(&host.json(&["doctor"], 0), "/ok", true);
        let again = host.json(&["init", "--user", "nobody"], 0);
        assert!(steps(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
        fs::set_permissions(host.config("old.token"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_mentions(&host.portok(&["doctor"]).ended(1).out, &["old.token", "portok init --user nobody"]);
    }
    let said = host.portok(&["init", "--user", "nobody-by-that-name"]).ended(2);
    assert_mentions(&said.err, &["nobody-by-that-name", "no such user"]);
    host.portok(&["init", "--user", "a\nb"]).ended(2);
}

#[test]
fn init_replaces_no_unit_of_others() {
    let host = Host::new();
    fs::create_dir(host.path("units")).unwrap();
    let unit = host.path("units/portok@.service");
    fs::write(&unit, "[Service]\nExecStart=/usr/bin/node portokd.js\n").unwrap();
    let said = host.portok(&["init"]).ended(5);
    assert_mentions(&said.err, &[&unit.display().to_string(), "--force"]);
    assert_at(&host.json(&["init"], 5), "/code", "exists");
    host.portok(&["init", "--force"]).ended(0);
    assert_mentions(&fs::read_to_string(&unit).unwrap(), &[PORTOKD]);
    // A link in place of the file is replaced, not written through.
    let victim = host.path("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&unit).unwrap();
    symlink(&victim, &unit).unwrap();
    host.portok(&["init", "--force"]).ended(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::symlink_metadata(&unit).unwrap().is_file());
}

#[test]
fn a_host_without_systemd_gets_its_files_and_is_told() {
    let host = Host::new();
    let mut env = host.env();
    env.insert("PATH".to_owned(), host.path("nowhere").display().to_string());
    let said = host.world.portok(&["init"], &env).ended(0);
    assert_mentions(&said.out, &["there is no systemctl on this host"]);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let said = host.world.portok(&["start", "api"], &env).ended(1);
    assert_mentions(&said.err, &["there is no systemctl", "portokd --instance api"]);
    let said = host.world.portok(&["list"], &env).ended(0);
    assert_mentions(&said.out, &["api"]);
    let said = host.world.portok(&["doctor"], &env).ended(1);
    assert_mentions(&said.out, &["✗ there is no systemctl"]);
    host.world.portok(&["remove", "api"], &env).ended(0);
    let pid1 = "System has not been booted with systemd as init system (PID 1). Can't operate.\n";
    fs::write(host.path("fakes/complaint"), pid1).unwrap();
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let said = host.portok(&["restart", "api"]).ended(1);
    assert_mentions(&said.err, &["systemd does not run this host"]);
}

#[test]
fn add_writes_what_portokd_reads_and_nobody_else_can() {
    let host = Host::new();
    let said =
        host.portok(&["add", "api", "--cmd", "node 'a b.js' \"$X\"", "--dir", "/srv", "--health", "/up"]);
    let said = said.ended(0);
    assert_mentions(&said.out, &["portok init", "portok enable api --now", "portok status api"]);
    let token = fs::read_to_string(host.config("api.token")).unwrap();
    assert!(token.trim().len() == 64 && !said.out.contains(token.trim()), "{said:?}");
    for file in ["api.toml", "api.token"] {
        assert_eq!(mode(&host.config(file)), 0o600, "{file}");
    }
    let checked = host.world.portokd(&["--check", "--instance", "api"], &host.env()).ended(0);
    let command = toml::Value::String("node 'a b.js' \"$X\"".to_owned());
    let config: toml::Table = checked.out.parse().unwrap();
    assert_eq!(config["app"]["command"], command);
    assert_eq!(config["app"]["directory"].as_str(), Some("/srv"));
    assert_eq!(config["health"]["path"].as_str(), Some("/up"));

    let added = host.json(&["add", "web", "--target", "8123"], 0);
    assert_at(&added, "/instance", "web");
    assert_eq!(mode(&host.config("web.env")), 0o600);
    let lines = fs::read_to_string(host.config("web.env")).unwrap();
    assert_mentions(&lines, &["\nINSTANCE_NAME=web\n", "\nINITIAL_TARGET_PORT=8123\n", "\nADMIN_TOKEN="]);
    assert!(!host.config("web.token").exists());
    let files: Vec<_> = fs::read_dir(host.path("conf")).unwrap().collect();
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn add_overwrites_only_with_force_and_follows_no_link() {
    let host = Host::new();
    host.portok(&["add", "api", "--cmd", "one"]).ended(0);
    let token = fs::read_to_string(host.config("api.token")).unwrap();
    let said = host.portok(&["add", "api", "--target", "8123"]).ended(5);
    assert_mentions(&said.err, &["api.toml", "--force"]);
    assert_at(&host.json(&["add", "api"], 5), "/code", "exists");
    assert!(!host.config("api.env").exists());
    host.portok(&["add", "api", "--target", "8123", "--force"]).ended(0);
    assert!(
        !host.config("api.toml").exists() && !host.config("api.token").exists(),
        "one instance, one format"
    );
    let victim = host.path("victim");
    fs::write(&victim, "precious").unwrap();
    for file in ["api.toml", "api.token"] {
        symlink(&victim, host.config(file)).unwrap();
    }
    host.portok(&["add", "api", "--cmd", "two", "--force"]).ended(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(mode(&host.config("api.token")), 0o600);
    assert_ne!(fs::read_to_string(host.config("api.token")).unwrap(), token);
    // Whoever may write the folder could put a configuration of their own there.
    fs::set_permissions(host.path("conf"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = host.portok(&["add", "web", "--cmd", "true"]).ended(1);
    assert_mentions(&said.err, &["others may write it", "chmod go-w"]);
    fs::set_permissions(host.path("conf"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn add_takes_no_port_that_somebody_has() {
    let host = Host::new();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = bound.local_addr().unwrap().port().to_string();
    let said = host.portok(&["add", "api", "--port", &port, "--cmd", "true"]).ended(5);
    assert_mentions(&said.err, &[&port, "somebody listens on it", "--force"]);
    host.portok(&["add", "api", "--port", &port, "--cmd", "true", "--force"]).ended(0);
    drop(bound);
    let said = host.portok(&["add", "web", "--port", &port]).ended(5);
    assert_mentions(&said.err, &["`api` has it"]);
    assert_at(&host.json(&["add", "web", "--port", &port], 5), "/code", "in_use");
    host.portok(&["add", "one"]).ended(0);
    host.portok(&["add", "two"]).ended(0);
    let value = |file: &str, key: &str| {
        let text = fs::read_to_string(host.config(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned()
    };
    for key in ["LISTEN_PORT=", "INITIAL_TARGET_PORT="] {
        assert_ne!(value("one.env", key), value("two.env", key));
    }
    host.portok(&["add", "three", "--port", "3999", "--target", "3999"]).ended(2);
}

#[test]
fn adds_at_once_get_different_ports_and_one_format() {
    let host = Host::new();
    let start = |n: usize, words: &[&str]| {
        Running::start(PORTOK, &[&["add"], words].concat(), &host.env(), &host.path(&format!("add-{n}")))
    };
    let names: Vec<_> = (0..12).map(|n| format!("web{n}")).collect();
    let adds: Vec<_> = names.iter().enumerate().map(|(n, name)| start(n, &[name])).collect();
    adds.into_iter().for_each(|mut add| drop(add.wait().ended(0)));
    let mut ports = BTreeSet::new();
    for name in &names {
        let text = fs::read_to_string(host.config(&format!("{name}.env"))).unwrap();
        let is_port =
            |line: &&str| line.starts_with("LISTEN_PORT=") || line.starts_with("INITIAL_TARGET_PORT=");
        ports.extend(text.lines().filter(is_port).map(|line| line.split_once('=').unwrap().1.to_owned()));
    }
    assert_eq!(ports.len(), 2 * names.len(), "{ports:?}");

    for n in 0..12 {
        let name = format!("api{n}");
        let adds =
            [start(100 + n, &[&name, "--cmd", "true"]), start(200 + n, &[&name, "--env", "--cmd", "true"])];
        let mut codes = adds.map(|mut add| add.wait().code);
        codes.sort_unstable();
        assert_eq!(codes, [0, 5], "one of both makes {name}");
        assert_ne!(
            host.config(&format!("{name}.toml")).exists(),
            host.config(&format!("{name}.env")).exists()
        );
    }
    let left = fs::read_dir(host.path("conf")).unwrap().map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn an_instance_without_an_app_of_its_own_gets_a_hardened_unit() {
    let host = Host::new();
    let drop_in = |name: &str| host.path(&format!("units/portok@{name}.service.d/50-hardened.conf"));
    host.portok(&["add", "early", "--target", "8123"]).ended(0);
    assert!(!host.path("units").exists(), "without a unit there is nothing to harden");
    host.portok(&["init"]).ended(0);
    assert!(drop_in("early").exists(), "init makes up for it");
    host.asked();
    let added = host.json(&["add", "web", "--target", "8124"], 0);
    assert!(
        steps(&added).contains(&("created".to_owned(), drop_in("web").display().to_string())),
        "{added:#}"
    );
    assert_eq!(host.asked(), ["daemon-reload"]);
    let text = fs::read_to_string(drop_in("web")).unwrap();
    for line in ["NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=", "PrivateTmp=yes"] {
        assert_mentions(&text, &[&format!("\n{line}")]);
    }
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    assert!(!drop_in("api").exists(), "an app inherits what its daemon may");
    assert_mentions(&host.portok(&["doctor"]).ended(0).out, &["✓ `web` has a hardened unit"]);
    fs::remove_file(drop_in("web")).unwrap();
    let lacking = host.portok(&["doctor"]).ended(0).out;
    assert_mentions(&lacking, &["! `web` starts no app, and its unit is not hardened", "portok init"]);
    host.portok(&["init"]).ended(0);
    host.portok(&["remove", "web"]).ended(0);
    assert!(!drop_in("web").parent().unwrap().exists());
    host.portok(&["add", "early", "--cmd", "true", "--force"]).ended(0);
    assert!(!drop_in("early").exists(), "what replaces it starts an app");
    host.portok(&["add", "late", "--target", "8125"]).ended(0);
    host.portok(&["clean", "--force"]).ended(0);
    assert!(!drop_in("late").parent().unwrap().exists());
}

#[test]
fn add_takes_no_directory_that_is_not_there() {
    let host = Host::new();
    let missing = host.path("missing").display().to_string();
    let said = host.portok(&["add", "api", "--cmd", "true", "--dir", &missing]).ended(2);
    assert_mentions(&said.err, &["`api`", &missing, "no such directory", "hint: ", "mkdir -p"]);
    fs::write(&missing, "").unwrap();
    let refused = host.json(&["add", "api", "--cmd", "true", "--dir", &missing], 2);
    assert_mentions(refused["message"].as_str().unwrap(), &["not a directory"]);
    assert_eq!(fs::read_dir(host.path("conf")).unwrap().count(), 0);
    fs::remove_file(&missing).unwrap();
    fs::create_dir(&missing).unwrap();
    host.portok(&["add", "api", "--cmd", "true", "--dir", &missing]).ended(0);
}

#[test]
fn add_writes_no_other_folder_than_it_was_given() {
    let host = Host::new();
    let folder = host.path("").join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&folder).unwrap();
    // The words of a test are text; a shell's are bytes, and so is a relative path's beginning.
    let mut add = std::process::Command::new(PORTOK);
    add.args(["add", "api", "--cmd", "true", "--dir", "."]).current_dir(&folder).env_clear().envs(host.env());
    let output = add.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_mentions(&String::from_utf8_lossy(&output.stderr), &["--dir", "UTF-8", "link"]);
    assert_eq!(fs::read_dir(host.path("conf")).unwrap().count(), 0);
}

#[test]
fn an_add_that_fails_takes_no_token_away() {
    let host = Host::new();
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    fs::remove_file(host.config("api.toml")).unwrap();
    // Nothing can take the place of a folder.
    fs::create_dir(host.config("api.toml")).unwrap();
    let said = host.portok(&["add", "api", "--cmd", "true", "--force"]).ended(1);
    assert_mentions(&said.err, &["cannot write", "api.toml"]);
    assert!(host.config("api.token").exists(), "the token of what was there");
    fs::remove_file(host.config("api.token")).unwrap();
    host.portok(&["add", "api", "--cmd", "true", "--force"]).ended(1);
    assert!(!host.config("api.token").exists(), "a token of nothing");
}

#[test]
fn a_name_is_checked_before_it_becomes_a_path() {
    let host = Host::new();
    let long = "x".repeat(65);
    for command in ["add", "remove", "start", "stop", "restart", "enable", "disable", "logs"] {
        for name in ["../etc", "a/b", "", "a b", "a.b", "%i", &long] {
            // Where an app of an instance may be named, there is none of that name.
            let code = match (name, command) {
                ("a/b", "remove") => 5,
                ("a/b", "logs") => 6,
                _ => 2,
            };
            let said = host.portok(&[command, name]).ended(code);
            assert!(!said.err.is_empty(), "{command} {name:?}");
        }
    }
    assert!(host.asked().is_empty());
    assert_eq!(fs::read_dir(host.path("conf")).unwrap().count(), 0);
}

#[test]
fn completions_and_man_pages_are_those_of_this_build() {
    let host = Host::new();
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let kept = |file: &str| fs::read_to_string(contrib.join(file)).unwrap_or_default();
    for (shell, file) in [("bash", "portok.bash"), ("zsh", "_portok"), ("fish", "portok.fish")] {
        let made = host.portok(&["completions", shell]).ended(0).out;
        let file = format!("completions/{file}");
        assert!(made == kept(&file), "make it anew: contrib/generate ({file}, {shell})");
    }
    fs::create_dir(host.path("man")).unwrap();
    host.portok(&["man", &host.path("man").display().to_string()]).ended(0);
    for file in ["portok.1", "portokd.8"] {
        let made = fs::read_to_string(host.path("man").join(file)).unwrap();
        assert!(made == kept(&format!("man/{file}")), "make it anew: contrib/generate ({file})");
    }
}
