//! Several apps behind one daemon: how they are found, come, change and go; what each keeps when
//! the daemon, or another app, is in trouble.

use std::fs;
use std::path::PathBuf;

use portok::wire::Status;
use serde_json::Value;

use crate::harness::app::App;
use crate::harness::conf::{Conf, write_private};
use crate::harness::daemon::TOKEN;
use crate::harness::{Answer, Conn, Daemon, World, wait_until};

mod addresses;
mod alternating;
mod edits;
mod faults;
mod files;
mod flavor;
mod gone;
mod killed;
mod kinds;
mod orders;
mod pages;
mod redis;
mod routes;
mod shown;
mod silent;
mod sticky;
mod targets;
mod trouble;
mod upgrade;

/// The configuration of an instance whose apps have files of their own.
fn edge(world: &World) -> Conf {
    fs::create_dir(folder(world)).unwrap();
    Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("state_file", world.state_file().display().to_string())
        .set("removal_delay", "100ms")
        .set("drain.period", "10s")
        .set("drain.early", true)
        .set("rollback.window", "0s")
        .set("admin.socket", world.socket().display().to_string())
        .set("admin.token", TOKEN)
        .set("admin.rate_limit", 10_000)
        .set("apps", toml::Table::new())
}

fn folder(world: &World) -> PathBuf {
    world.path(&format!("conf/{}.d", world.name()))
}

fn file(world: &World, app: &str) -> PathBuf {
    folder(world).join(format!("{app}.toml"))
}

/// The record of an app.
fn record(world: &World, app: &str) -> PathBuf {
    world.path(&format!("state/state.d/{app}.json"))
}

/// Writes the file of an app that runs `release` for these hosts.
fn put(world: &World, app: &str, hosts: &[&str], release: &App) {
    let hosts: Vec<_> = hosts.iter().map(|host| toml::Value::from(*host)).collect();
    let conf = Conf::new(file(world, app))
        .set("hosts", hosts)
        .set("command", release.command())
        .set("stop_timeout", "10s");
    conf.save();
}

/// Writes this as the file of an app.
fn put_text(world: &World, app: &str, text: &str) {
    let new = folder(world).join(format!("{app}.new"));
    write_private(&new, text);
    fs::rename(new, file(world, app)).unwrap();
}

fn take_away(world: &World, app: &str) {
    fs::remove_file(file(world, app)).unwrap();
}

/// A GET for that host.
fn get(daemon: &Daemon<'_>, host: &str, path: &str) -> Answer {
    daemon.send("GET", path, &[("host", host)], None)
}

/// Has the daemon look at its files now.
fn reload(daemon: &Daemon<'_>) {
    daemon.admin("POST", "/__reload", None).expect(200);
}

fn status(daemon: &Daemon<'_>, app: &str) -> Status {
    let value = daemon.admin("GET", &format!("/__status?app={app}"), None).expect(200).json();
    serde_json::from_value(value).unwrap()
}

/// Waits until `version` answers for that host.
#[track_caller]
fn wait_for(daemon: &Daemon<'_>, host: &str, version: &str) {
    let explain = || format!("{:?}\n{}", get(daemon, host, "/"), daemon.log());
    wait_until(&format!("{version} answers for {host}"), explain, || {
        let answer = get(daemon, host, "/");
        (answer.status() == 200 && answer.version() == version).then_some(())
    });
}

/// Waits until the leader of the live release's processes is written into the record of an app.
#[track_caller]
fn live_pid(daemon: &Daemon<'_>, app: &str) -> u32 {
    let explain = || format!("{:?}\n{}", status(daemon, app), daemon.log());
    wait_until(&format!("{app} is recorded as live"), explain, || {
        let pid = status(daemon, app).live?.pid?;
        let record = fs::read_to_string(record(daemon.world, app)).ok()?;
        let record: Value = serde_json::from_str(&record).ok()?;
        let is_live = |run: &Value| run["role"] == "live" && run["identity"]["pid"] == pid;
        (record["intent"].is_null() && record["runs"].as_array()?.iter().any(is_live)).then_some(pid)
    })
}

/// The apps as `GET /__apps` shows them.
fn apps(world: &World) -> Vec<Value> {
    let mut conn = Conn::unix(&world.socket()).unwrap();
    let answer = conn.request("GET", "/__apps", &[], None).unwrap().expect(200).json();
    answer.as_array().unwrap().clone()
}

fn names(world: &World) -> Vec<String> {
    apps(world).iter().map(|app| app["app"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the file of `app` is kept for the next start of the daemon.
#[track_caller]
fn wait_until_kept(world: &World, app: &str) {
    wait_until_kept_as(world, app, "texts");
}

/// Waits until something is kept for the next start of the daemon: `what` there is of `app`.
#[track_caller]
fn wait_until_kept_as(world: &World, app: &str, what: &str) {
    let kept = || fs::read_to_string(world.path("state/state.apps.json")).unwrap_or_default();
    let is_kept = || Some(serde_json::from_str::<Value>(&kept()).ok()?[what][app].is_string());
    wait_until("it is kept", kept, || is_kept().filter(|is_kept| *is_kept).map(drop));
}
