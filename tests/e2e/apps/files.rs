//! Files of apps come, change and go while the daemon runs.

use std::fs;

use super::{
    edge, get, live_pid, names, put, put_text, record, reload, status, take_away, wait_for, wait_until_kept,
};
use crate::harness::{Load, World, assert_mentions, wait_until};

#[test]
fn files_come_change_and_go_and_the_other_app_answers_all_the_while() {
    let world = World::new();
    let conf = edge(&world);
    // The load asks for this host.
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "app.test", "steady-1");
    let steady = live_pid(&daemon, "steady");
    let load = Load::start(daemon.addr);
    for round in 0..3 {
        let [one, two] = [1, 2].map(|number| world.app(&format!("api-{round}-{number}")));
        put(&world, "api", &["api.test"], &one);
        reload(&daemon);
        wait_for(&daemon, "api.test", one.version());
        // Another command is a deploy.
        put(&world, "api", &["api.test"], &two);
        reload(&daemon);
        wait_for(&daemon, "api.test", two.version());
        // Other hosts move routes alone.
        let pid = live_pid(&daemon, "api");
        put(&world, "api", &["moved.test"], &two);
        reload(&daemon);
        wait_for(&daemon, "moved.test", two.version());
        get(&daemon, "api.test", "/").expect(404);
        assert_eq!(live_pid(&daemon, "api"), pid);
        // A broken file holds up nobody.
        put_text(&world, "api", "hosts = 7");
        reload(&daemon);
        wait_until(
            "it is refused",
            || daemon.log(),
            || {
                super::apps(&world)[0]["error"]
                    .as_str()
                    .is_some_and(|why| why.contains("hosts"))
                    .then_some(())
            },
        );
        assert_eq!(get(&daemon, "moved.test", "/").version(), two.version());
        take_away(&world, "api");
        reload(&daemon);
        wait_until("it is gone", || daemon.log(), || (names(&world) == ["steady"]).then_some(()));
        get(&daemon, "moved.test", "/").expect(404);
        assert_eq!(world.processes().len(), 1, "{:?}", world.processes());
        assert!(!record(&world, "api").exists());
    }
    // What was there before is known again, and does not run.
    put(&world, "api", &["api.test"], &world.app("api-9"));
    reload(&daemon);
    wait_for(&daemon, "api.test", "api-9");
    let releases = daemon.admin("GET", "/__releases?app=api", None).expect(200).json();
    assert!(releases.as_array().unwrap().len() > 6, "{releases:#}");
    assert_eq!(live_pid(&daemon, "steady"), steady);
    load.wait_for_more(50);
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn a_file_that_is_broken_at_the_start_is_left_out_and_begins_when_it_is_mended() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "good", &["good.test"], &world.app("good-1"));
    put_text(&world, "bad", "comand = \"x\"");
    let daemon = world.start(&conf);
    wait_for(&daemon, "good.test", "good-1");
    let bad = status(&daemon, "bad");
    assert_eq!(bad.phase.as_str(), "empty");
    assert_eq!(bad.config.file.as_deref(), Some(&*super::file(&world, "bad").display().to_string()));
    assert_mentions(&super::apps(&world)[0]["error"].to_string(), &["comand"]);
    daemon.admin("POST", "/__deploy?app=bad", Some(&serde_json::json!({}))).refused(400, "bad_request");
    put(&world, "bad", &["bad.test"], &world.app("bad-1"));
    reload(&daemon);
    wait_for(&daemon, "bad.test", "bad-1");
    daemon.terminate();
}

#[test]
fn an_app_named_redis_and_the_apps_of_redis_are_not_counted_under_one_name() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "redis", &["file.test"], &world.app("file-1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "file.test", "file-1");
    // Nobody has to answer there.
    conf.set("redis.url", "redis://127.0.0.1:1").save();
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["\"redis\"", "refused", "a name other than redis"]);
    // It stays as it was until its file has another name.
    wait_for(&daemon, "file.test", "file-1");
    let text = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut series: Vec<_> = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert!(series.iter().any(|series| series.contains("app=\"redis\"")), "{text}");
    series.sort_unstable();
    assert!(series.windows(2).all(|two| two[0] != two[1]), "{text}");
    daemon.terminate();
}

#[test]
fn most_apps_go_only_when_that_is_asked_for() {
    let world = World::new();
    let conf = edge(&world);
    let all = ["a", "b", "c"];
    for app in all {
        put(&world, app, &[&format!("{app}.test")], &world.app(&format!("{app}-1")));
    }
    let mut daemon = world.start(&conf);
    for app in all {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
        live_pid(&daemon, app);
    }
    take_away(&world, "a");
    take_away(&world, "b");
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["2 of 3 apps", "reload --prune"]);
    for app in all {
        assert_eq!(get(&daemon, &format!("{app}.test"), "/").version(), format!("{app}-1"));
    }
    // At a start they are spared too, and serve as before.
    wait_until_kept(&world, "b");
    daemon.kill();
    daemon = world.start_saved(&conf);
    for app in all {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
    }
    wait_until("they go on", || daemon.log(), || (world.processes().len() == 3).then_some(()));
    assert_eq!(names(&world), all);
    let told = daemon.admin("POST", "/__reload?prune=1", None).expect(200).json();
    assert_mentions(&told.to_string(), &["removed"]);
    wait_until("they are stopped", || daemon.log(), || (world.processes().len() == 1).then_some(()));
    wait_until("they are gone", || daemon.log(), || (names(&world) == ["c"]).then_some(()));
    daemon.terminate();
}

#[test]
fn an_app_that_cannot_begin_as_another_kind_is_refused_until_it_can() {
    let world = World::new();
    let program = world.app("shop-1").start_unmanaged();
    let conf = edge(&world);
    let targets = format!("targets = [\"127.0.0.1:{}\"]\n", program.port);
    put_text(&world, "shop", &format!("hosts = [\"shop.test\"]\n{targets}health.interval = \"50ms\"\n"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "shop-1");
    // Its record could not be written there.
    fs::create_dir(record(&world, "shop")).unwrap();
    put(&world, "shop", &["shop.test"], &world.app("shop-2"));
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    let told = told["apps"].as_array().unwrap();
    assert_eq!((told.len(), &told[0]["change"]), (1, &serde_json::json!("refused")), "{told:?}");
    assert_mentions(&told[0]["why"].to_string(), &["shop.json is no regular file"]);
    let shown = status(&daemon, "shop");
    assert_eq!(shown.phase.as_str(), "settled");
    assert_eq!(get(&daemon, "shop.test", "/").expect(200).version(), "shop-1");
    assert_mentions(&shown.config.error.unwrap_or_default(), &["shop.json is no regular file"]);
    fs::remove_dir(record(&world, "shop")).unwrap();
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_eq!(told["apps"][0]["change"], "changed", "{told}");
    wait_for(&daemon, "shop.test", "shop-2");
    daemon.terminate();
}

#[test]
fn an_instance_without_any_app_says_so() {
    let world = World::new();
    let daemon = world.start(&edge(&world));
    let shown = daemon.status();
    assert_eq!((shown.instance.as_str(), shown.phase.as_str()), (world.name(), "empty"));
    assert_eq!((shown.pid, shown.app), (daemon.pid(), None));
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["no apps yet"]);
    daemon.admin("GET", "/__releases", None).refused(400, "app_required");
    daemon.terminate();
}

#[test]
fn files_of_others_where_records_of_several_apps_would_be_are_left_alone() {
    let world = World::new();
    let theirs = record(&world, "theirs");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "{\"colour\": \"blue\"}").unwrap();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    assert_mentions(&daemon.log(), &["theirs.json is no record of an app"]);
    daemon.terminate();
    let there: Vec<_> =
        fs::read_dir(theirs.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(there, std::slice::from_ref(&theirs));
    assert_eq!(fs::read_to_string(theirs).unwrap(), "{\"colour\": \"blue\"}");
}
