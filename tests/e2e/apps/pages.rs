//! Pages and lines of the access log where there are several apps.

use std::fs;

use serde_json::Value;

use super::{edge, put_text, reload, wait_for};
use crate::harness::wait::lines;
use crate::harness::{Daemon, World, assert_mentions, wait_until};

/// Makes a folder with one page for all errors.
fn pages(world: &World, name: &str, text: &str) -> String {
    let folder = world.path(name);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("default.html"), text).unwrap();
    folder.display().to_string()
}

/// What a browser is shown that asks for this.
fn shown(daemon: &Daemon<'_>, host: &str, path: &str, status: u16) -> String {
    daemon.send("GET", path, &[("host", host), ("accept", "text/html")], None).expect(status).text()
}

#[test]
fn each_app_has_its_own_pages_and_its_name_in_the_log() {
    let world = World::new();
    let [api, shop] = ["api-1", "shop-1"].map(|version| world.app(version));
    let log = world.path("access.log");
    let conf = edge(&world)
        .set("access.file", log.display().to_string())
        .set("errors.dir", pages(&world, "all", "of all"))
        .set("apps.api.hosts", vec!["api.test"])
        .set("apps.api.command", api.command())
        .set("apps.api.errors.dir", pages(&world, "own", "of api"))
        .set("apps.shop.hosts", vec!["shop.test"])
        .set("apps.shop.command", shop.command())
        .set("apps.www.hosts", vec!["www.test"])
        .set("apps.www.redirect", "https://example.com");
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "api-1");
    wait_for(&daemon, "shop.test", "shop-1");
    assert_eq!(shown(&daemon, "api.test", "/drop", 502), "of api");
    assert_eq!(shown(&daemon, "shop.test", "/drop", 502), "of all");
    assert_eq!(shown(&daemon, "other.test", "/nowhere", 404), "of all");
    shown(&daemon, "www.test", "/moved", 308);
    let found = wait_until(
        "there is a line of each",
        || format!("{:#?}", lines(&log)),
        || {
            let found: Vec<Value> =
                lines(&log).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            found.iter().any(|line| line["path"] == "/moved").then_some(found)
        },
    );
    let app_of = |host: &str, path: &str| {
        let line = found.iter().find(|line| line["host"] == host && line["path"] == path);
        line.unwrap_or_else(|| panic!("{host} {path}: {found:#?}"))["app"].clone()
    };
    assert_eq!(app_of("api.test", "/drop"), "api");
    assert_eq!(app_of("shop.test", "/drop"), "shop");
    assert_eq!(app_of("www.test", "/moved"), "www");
    assert_eq!(app_of("other.test", "/nowhere"), Value::Null);
    daemon.terminate();
}

#[test]
fn a_folder_of_pages_that_is_missing_refuses_one_app_until_it_is_there() {
    let world = World::new();
    let app = world.app("late-1");
    let conf = edge(&world)
        .set("apps.api.hosts", vec!["api.test"])
        .set("apps.api.command", world.app("api-1").command());
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "api-1");
    let dir = world.path("late").display().to_string();
    let command = toml::Value::from(app.command());
    put_text(
        &world,
        "late",
        &format!("hosts = [\"late.test\"]\ncommand = {command}\n[errors]\ndir = \"{dir}\"\n"),
    );
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_eq!(told["success"], false);
    assert_mentions(&told.to_string(), &["late.toml", "errors.dir", "No such file"]);
    // The file itself has not changed when its pages are there.
    pages(&world, "late", "of late");
    reload(&daemon);
    wait_for(&daemon, "late.test", "late-1");
    assert_eq!(shown(&daemon, "late.test", "/drop", 502), "of late");
    fs::write(world.path("late/default.html"), "of later").unwrap();
    reload(&daemon);
    assert_eq!(shown(&daemon, "late.test", "/drop", 502), "of later");
    assert_eq!(daemon.send("GET", "/", &[("host", "api.test")], None).version(), "api-1");
    daemon.terminate();
}
