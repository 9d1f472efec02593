//! What portok believes, makes and prints: files that others may write, links that others planted, text of others.

use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use crate::harness::{World, assert_mentions, wait_until};

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can give files away");
    }
    is_root
}

#[test]
fn an_env_file_that_others_may_write_is_refused() {
    let world = World::new();
    std::fs::create_dir(world.path("app")).unwrap();
    world.write("app/.env", "GREETING=hello\n");
    let file = world.path("app/.env");
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("app.env_file", file.display().to_string())
        .set("app.directory", world.path("app").display().to_string());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o606);
    let refused = daemon.deploy(&world.app("v2")).refused(400, "bad_request");
    assert_mentions(&refused.to_string(), &["app/.env", "everybody may write", "chmod go-w"]);
    mode(0o600);
    if is_root() {
        chown(&file, Some(4242), None).unwrap();
        let refused = daemon.deploy(&world.app("v2")).refused(400, "bad_request");
        assert_mentions(&refused.to_string(), &["app/.env", "uid 4242"]);
        // It lies below the app's directory: whoever that belongs to decides what runs anyway.
        chown(world.path("app"), Some(4242), None).unwrap();
    }
    daemon.deploy(&world.app("v3")).expect(200);
}

#[test]
fn where_nothing_was_made_live_the_status_does_not_say_that_something_else_was() {
    let world = World::new();
    world.write("app.env", "GREETING=hello\n");
    let file = world.path("app.env");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o606)).unwrap();
    let conf = world.conf().app(&world.app("v1")).set("app.env_file", file.display().to_string());
    let daemon = world.start(&conf);
    let status = daemon.wait_until("it is refused", |status| status.last_failure.is_some());
    let app = status.config.app_in_force.expect("it is told");
    assert_eq!((status.live.is_none(), app.in_force), (true, false));
    assert_eq!(app.why.as_deref(), Some("aborted"));
}

#[test]
fn the_lock_and_the_state_are_not_opened_through_a_link() {
    for name in ["state/state.json.lock", "state/state.json"] {
        let world = World::new();
        world.write("precious", "precious");
        symlink(world.path("precious"), world.path(name)).unwrap();
        let conf = world.conf().app(&world.app("v1"));
        conf.save();
        let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env());
        assert_ne!(said.code, 0, "{}", said.err);
        assert!(said.err.contains(&world.path(name).display().to_string()), "{}", said.err);
        assert_eq!(std::fs::read_to_string(world.path("precious")).unwrap(), "precious");
        std::fs::remove_file(world.path(name)).unwrap();
    }
}

#[test]
fn no_folder_is_made_behind_a_planted_link() {
    if !is_root() {
        return;
    }
    let world = World::new();
    for folder in ["open", "target"] {
        std::fs::create_dir(world.path(folder)).unwrap();
    }
    std::fs::set_permissions(world.path("open"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    symlink(world.path("target"), world.path("open/portok")).unwrap();
    lchown(world.path("open/portok"), Some(4242), None).unwrap();
    for key in ["admin.socket", "state_file"] {
        let conf = world
            .conf()
            .app(&world.app("v1"))
            .set(key, world.path("open/portok/default/x").display().to_string());
        conf.save();
        let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env());
        assert_ne!(said.code, 0, "{}", said.err);
        assert_mentions(&said.err, &["open/portok is a link", "uid 4242"]);
        assert!(!world.path("target/default").exists(), "{key}");
    }
}

#[test]
fn what_an_app_prints_steers_no_terminal() {
    const EVIL: &str = r"\033[2Jcleared\rforged \302\23331mc1 \342\200\256rtl";
    let hidden = |text: &str| text.contains(['\x1b', '\r', '\u{9b}', '\u{202e}']);
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let command = format!("printf '{EVIL}\\n'; exit 3");
    let aborted = daemon.portok(&["deploy", "--release", "evil", "--cmd", &command]).ended(3);
    for text in [&aborted.out, &aborted.err] {
        assert!(!hidden(text), "{text:?}");
    }
    assert_mentions(&aborted.err, &["cleared", "rtl"]);
    let logs = daemon.portok(&["logs", "--release", "evil"]).ended(0);
    assert!(logs.out.contains("cleared\u{fffd}forged") && !hidden(&logs.out), "{:?}", logs.out);
    let json = daemon.portok(&["logs", "--release", "evil", "--json"]).ended(0);
    assert!(!hidden(&json.out), "{:?}", json.out);
    assert!(json.json().to_string().contains('\u{202e}'), "its value is what the app printed");
    wait_until(
        "the daemon passed the line on",
        || daemon.log(),
        || daemon.log().contains("cleared").then_some(()),
    );
    assert!(!hidden(&daemon.log()), "{:?}", daemon.log());
}
