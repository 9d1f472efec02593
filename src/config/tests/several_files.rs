//! Several apps in files of their own: which files count, and what becomes of bad ones.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::several::{app, several};
use super::*;

#[test]
fn each_file_is_all_or_nothing_for_itself() {
    let case = Case::file("[apps.main]\ncommand = \"x\"\n");
    case.app("good", "targets = [\"10.0.0.1:80\"]\n[health]\npath = \"/up\"\n");
    case.app("bad", "command = 5\nhosts = [\"\"]\n\n[health]\ntimeout = 5\n");
    case.app("broken", "command = \"hunter2\" oops\n");
    case.app("a b", "command = \"x\"\n");
    case.app("main", "command = \"y\"\n");
    case.app("large", &"#".repeat(64 * 1024 + 1));
    mode(&case.app("open", "command = \"x\"\n"), 0o666);
    fs::create_dir(case.path("api.d/folder.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", case.path("api.d/link.toml")).unwrap();
    for other in ["good.toml~", ".#good.toml", ".hidden.toml", "README"] {
        case.write(&format!("api.d/{other}"), "nonsense");
    }
    let config = case.good();
    let Several { apps, refused, folder, unreadable, .. } = several(&config);
    assert_eq!(apps.keys().collect::<Vec<_>>(), ["good", "main"]);
    assert!(apps["good"].health.is_set);
    assert_eq!(
        apps["main"].app.command,
        Some(CommandLine::Shell("x".to_owned())),
        "the main file goes first"
    );
    assert_eq!((folder.as_deref(), unreadable), (Some(case.path("api.d").as_path()), &None));
    let names = ["a b", "bad", "broken", "folder", "large", "link", "main", "open"];
    assert_eq!(refused.keys().collect::<Vec<_>>(), names);
    for (name, part) in [
        ("a b", "the stem \"a b\" is to be the app's name: expected 1 to 64 letters"),
        ("broken", "broken.toml:1:21: not valid TOML"),
        ("folder", "expected a regular file"),
        ("large", "it is larger than 64.0 KiB"),
        ("link", "cannot read the app's file: No such file"),
        ("main", &format!("the app main is in {}:1 too, which goes first", case.config().display())),
        ("open", "everybody may write it (mode 0666), refused; run: chmod go-w"),
    ] {
        assert!(refused[name].contains(part), "{}\nlacks {part}", refused[name]);
        assert!(refused[name].starts_with(&case.path("api.d").join(name).display().to_string()), "{name}");
    }
    let bad: Vec<_> = refused["bad"].lines().collect();
    assert_eq!(bad.len(), 3, "all of them at once: {bad:#?}");
    let places = [":1:11: command = 5", ":2:10: hosts = \"\"", ":5:11: health.timeout = 5"];
    assert!(bad.iter().zip(places).all(|(problem, place)| problem.contains(place)), "{bad:#?}");
    assert!(!refused.values().any(|problems| problems.contains("hunter2")));
}

#[test]
fn no_app_has_the_name_by_which_those_of_redis_are_counted() {
    let redis = "[redis]\nurl = \"redis://127.0.0.1\"\n";
    let problems = Case::file(&format!("{redis}[apps.redis]\ncommand = \"x\"\n")).problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains(":3:") && problems[0].contains("[apps.redis]: expected a name other than"));
    let case = Case::file(&format!("{redis}[apps]\n"));
    let file = case.app("redis", "command = \"x\"\n");
    let config = case.good();
    let refused = &several(&config).refused["redis"];
    assert!(refused.starts_with(&format!("{}: expected a name other than", file.display())), "{refused}");
    let alone = Case::file("[apps.redis]\ncommand = \"x\"\n").good();
    assert_eq!(several(&alone).apps.len(), 1);
}

#[test]
fn a_folder_that_others_may_write_is_not_read() {
    let case = Case::file("[apps.main]\ncommand = \"x\"\n");
    case.app("shop", "command = \"x\"\n");
    mode(&case.path("api.d"), 0o777);
    let config = case.good();
    assert_eq!(several(&config).apps.keys().collect::<Vec<_>>(), ["main"]);
    let why = several(&config).unreadable.as_deref().unwrap();
    assert!(why.contains("everybody may write it (mode 0777), refused; run: chmod go-w"), "{why}");
}

#[test]
fn targets_where_an_app_of_this_portok_listens_are_refused() {
    let hook = "listen = [\"127.0.0.1:9080\"]\ncommand = \"x\"\n";
    let loops = "targets = [\"127.0.0.1:9080\"]\n";
    let problems = Case::file(&format!("[apps.hook]\n{hook}[apps.shop]\n{loops}")).problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].contains(":5:11: apps.shop.targets = ")
            && problems[0].contains("where portok itself listens")
    );
    let own = "listen = [\"127.0.0.1:9080\"]\ntargets = [\"127.0.0.1:9080\"]\n";
    assert_eq!(Case::file(&format!("[apps.own]\n{own}")).problems().len(), 1);

    let case = Case::file(&format!("[apps.hook]\n{hook}"));
    case.app("own", &own.replace("9080", "9081"));
    case.app("shop", loops);
    let config = case.good();
    assert_eq!(several(&config).apps.keys().collect::<Vec<_>>(), ["hook"]);
    let refused = &several(&config).refused;
    assert!(refused["own"].contains("own.toml:2:11: targets = "), "{refused:?}");
    let whose = format!("portok itself listens (the app hook, {}:1)", case.config().display());
    assert!(
        refused["shop"].contains("shop.toml:1:11: targets = ") && refused["shop"].ends_with(&whose),
        "{refused:?}"
    );
}

#[test]
fn a_file_that_listens_at_the_target_of_an_app_before_it_is_the_one_that_is_refused() {
    let case = Case::file("[apps.shop]\ntargets = [\"127.0.0.1:9080\"]\n");
    case.app("b", "listen = [\"127.0.0.1:9081\", \"0.0.0.0:9080\"]\ncommand = \"x\"\n");
    // Of two files it is the later one.
    case.app("c", "targets = [\"127.0.0.1:9082\"]\n");
    case.app("d", "listen = \"127.0.0.1:9082\"\ncommand = \"x\"\n");
    // A file that is refused is in nobody's way.
    case.app("e", "targets = [\"127.0.0.1:9081\"]\n");
    let config = case.good();
    let Several { apps, refused, .. } = several(&config);
    assert_eq!(apps.keys().collect::<Vec<_>>(), ["c", "e", "shop"]);
    for (name, value, other) in [
        ("b", "b.toml:1:10: listen = ", format!("(the app shop, {}:1)", case.config().display())),
        ("d", "d.toml:1:10: listen = ", format!("(the app c, {}:1)", case.path("api.d/c.toml").display())),
    ] {
        assert!(refused[name].contains(value) && refused[name].ends_with(&other), "{}", refused[name]);
    }
}

#[test]
fn an_address_that_the_instance_listens_on_is_no_apps_own() {
    for (listen, own) in [
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("[::]:80", "0.0.0.0:80"),
        ("10.0.0.1:80", "[::]:80"),
        ("[::1]:80", "[::1]:80"),
    ] {
        let app = format!("listen = \"{own}\"\ncommand = \"x\"\n");
        let case = Case::file(&format!("listen = \"{listen}\"\n[apps]\n"));
        let too = format!("addresses of its own: {own} is the instance's too");
        let said = format!(":1:10: listen = \"{listen}\")");
        let both = format!("{too} ({}{said}", case.config().display());
        case.app("shop", &app);
        let config = case.good();
        let refused = &several(&config).refused["shop"];
        assert!(refused.contains("shop.toml:1:10: listen = ") && refused.ends_with(&both), "{refused}");
        let problems = Case::file(&format!("listen = \"{listen}\"\n[apps.shop]\n{app}")).problems();
        assert!(problems.len() == 1 && problems[0].contains(&too), "{problems:?}");
        assert!(problems[0].ends_with(&said), "{problems:?}");
    }
    for (listen, own) in
        [("0.0.0.0:80", "[::1]:80"), ("0.0.0.0:0", "127.0.0.1:0"), ("0.0.0.0:80", "0.0.0.0:81")]
    {
        let app = format!("listen = \"{listen}\"\n[apps.shop]\nlisten = \"{own}\"\ncommand = \"x\"\n");
        assert_eq!(several(&Case::file(&app).good()).apps.len(), 1, "{listen} and {own}");
    }
}

#[test]
fn a_redirect_to_itself_is_odd_and_a_warning_names_its_file() {
    let case = Case::file("[apps.a]\nhosts = [\"a.b\"]\nredirect = \"https://A.b\"\n");
    case.app("c", "hosts = [\"*.c.d\"]\nredirect = \"https://x.c.d:444\"\n");
    case.app("e", "redirect = \"https://e\"\n");
    let config = case.good();
    let shown = case.path("api.d/c.toml").display().to_string();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(warned(&config, "apps.a.redirect: https://A.b is one of the app's own hosts"));
    assert!(
        warned(&config, &format!("{shown}: redirect: https://x.c.d:444 is one of")),
        "{:?}",
        config.warnings
    );
}

#[test]
fn a_file_that_has_not_changed_is_not_read_again() {
    let case = Case::file("[apps]\n");
    case.app("one", "command = \"x\"\n");
    case.app("two", "command = \"x\"\n");
    let first = remembered(&case, "two");
    case.app("one", "command = \"longer\"\n");
    let edited = case.good();
    assert_eq!(app(&edited, "one").app.command, Some(CommandLine::Shell("longer".to_owned())));
    assert!(Arc::ptr_eq(&app(&first, "two"), &app(&edited, "two")));
    // What stands for every app is another now.
    case.write("api.toml", "[health]\npath = \"/up\"\n[apps]\n");
    assert_eq!(app(&case.good(), "two").health.path, "/up");
    fs::remove_file(case.path("api.d/two.toml")).unwrap();
    assert_eq!(several(&case.good()).apps.len(), 1);
    // A file that was refused is looked at again once it differs.
    case.app("one", "command = 5\n");
    assert_eq!((several(&case.good()).refused.len(), several(&case.good()).refused.len()), (1, 1));
    mode(&case.app("one", "command = \"x\"\n"), 0o666);
    assert!(several(&case.good()).refused["one"].contains("everybody may write"));
    mode(&case.path("api.d/one.toml"), 0o600);
    assert!(several(&case.good()).refused.is_empty());
    // The same of one that is remembered: its rights count at every look.
    remembered(&case, "one");
    mode(&case.path("api.d/one.toml"), 0o606);
    assert!(several(&case.good()).refused["one"].contains("everybody may write"));
}

/// The configuration, once what the file of `name` says is remembered: it has not changed for long
/// enough.
fn remembered(case: &Case, name: &str) -> Config {
    let end = Instant::now() + Duration::from_secs(30);
    let mut before = case.good();
    loop {
        let now = case.good();
        if Arc::ptr_eq(&app(&before, name), &app(&now, name)) {
            return now;
        }
        assert!(Instant::now() < end, "the file is read again and again");
        before = now;
    }
}

#[test]
fn a_change_that_size_and_time_of_a_file_do_not_show_is_taken_up() {
    let case = Case::file("[apps]\n");
    let path = case.app("one", "command = \"0\"\n");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |digit: u64| {
        // In place, as few editors do it.
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_at(format!("{digit}").as_bytes(), 11).unwrap();
        file.set_modified(long_ago).unwrap();
    };
    let command = |config: &Config| app(config, "one").app.command.clone();
    let says = |digit: u64| Some(CommandLine::Shell(digit.to_string()));
    // Many within one tick of the clock that the times of files come from.
    for number in 1..200 {
        write(number % 10);
        assert_eq!(command(&case.good()), says(number % 10));
    }
    assert_eq!(command(&remembered(&case, "one")), says(9));
    write(0);
    assert_eq!(command(&case.good()), says(0));
}

#[test]
fn a_flavor_takes_another_file_and_keeps_name_folder_and_record() {
    let mut case = Case::file("[apps.a]\ncommand = \"x\"\n");
    case.write("api_test.toml", "listen = 81\n[apps.t]\ncommand = \"x\"\n");
    case.app("shop", "command = \"x\"\n");
    case.set("PORTOK_FLAVOR", "test");
    let config = case.good();
    assert_eq!((config.name.as_str(), config.file.clone()), ("api", Some(case.path("api_test.toml"))));
    assert_eq!(config.state_file, case.path("state/api.json"));
    assert_eq!(several(&config).apps.keys().collect::<Vec<_>>(), ["shop", "t"]);
    // A running daemon reads the same again.
    case.sources.hold_to(&config);
    assert_eq!(case.good(), config);
    case.set("PORTOK_FLAVOR", "../x");
    assert!(case.problems()[0].starts_with("PORTOK_FLAVOR = \"../x\": expected 1 to 64 letters"));

    let mut case = Case::new();
    case.write("etc/edge_test.toml", "[apps]\n");
    case.sources.instance = Some("edge".to_owned());
    case.set("PORTOK_FLAVOR", "test");
    let config = case.good();
    assert_eq!((config.name.as_str(), config.file), ("edge", Some(case.path("etc/edge_test.toml"))));
}

fn kept_file(text: &str, has_record: bool) -> KeptApp {
    KeptApp { said: AppText { text: text.into(), in_main_file: false }, has_record }
}

#[test]
fn an_app_that_was_removed_starts_nothing_by_its_kept_text() {
    const RUNS: &str = "command = \"x\"\n";
    const TARGETS: &str = "targets = [\"127.0.0.1:9081\"]\n";
    const REDIRECT: &str = "redirect = \"https://example.com\"\n";
    // (its file is refused, the folder is gone, it has a record, which of the three come back)
    for (is_refused, is_unreadable, has_record, back) in [
        (false, false, false, &["redirect", "targets"][..]),
        (false, false, true, &["redirect", "runs", "targets"]),
        (true, false, false, &["redirect", "targets"]),
        (true, false, true, &["redirect", "runs", "targets"]),
        (false, true, false, &["redirect", "targets"]),
        (false, true, true, &["redirect", "runs", "targets"]),
    ] {
        let mut case = Case::file("[apps]\n");
        let all = [("runs", RUNS), ("targets", TARGETS), ("redirect", REDIRECT)];
        if !is_unreadable {
            case.app("steady", "hosts = [\"steady.test\"]\ncommand = \"y\"\n");
        }
        for (app, _) in all.iter().filter(|_| is_refused) {
            case.app(app, "hosts = 7\n");
        }
        let kept = all.map(|(app, text)| {
            (app.to_owned(), kept_file(&format!("hosts = [\"{app}.test\"]\n{text}"), has_record))
        });
        case.sources.kept = kept.into();
        let config = case.good();
        let several = several(&config);
        assert_eq!(several.unreadable.is_some(), is_unreadable);
        let names: Vec<_> = several.apps.keys().filter(|name| *name != "steady").collect();
        assert_eq!(names, back, "{is_refused} {is_unreadable} {has_record}");
        let gone: Vec<_> = several.gone.iter().collect();
        assert_eq!(gone, if is_refused { &[][..] } else { &names }, "{is_unreadable} {has_record}");
    }
}

#[test]
fn an_app_as_it_was_last_is_held_against_the_others_like_any_other() {
    let mut case = Case::file("[apps]\n");
    case.app("hook", "listen = [\"127.0.0.1:9080\"]\ntargets = [\"127.0.0.1:8085\"]\n");
    case.app("shop", "hosts = 7\n");
    let kept = [
        ("fine", "targets = [\"127.0.0.1:9081\"]\n"),
        ("circle", "listen = [\"127.0.0.1:8085\"]\ncommand = \"x\"\n"),
        ("shop", "targets = [\"127.0.0.1:9080\"]\n"),
    ];
    case.sources.kept = kept.map(|(app, text)| (app.to_owned(), kept_file(text, true))).into();
    let config = case.good();
    let Several { apps, refused, texts, .. } = several(&config);
    assert_eq!(apps.keys().collect::<Vec<_>>(), ["fine", "hook"]);
    assert!(texts.contains_key("fine") && !texts.contains_key("shop"));
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["circle", "shop"]);
    assert!(refused["circle"].contains("takes the requests to a target (the app hook"), "{refused:?}");
    for part in ["hosts = 7", "as it was last", "where portok itself listens (the app hook"] {
        assert!(refused["shop"].contains(part), "{refused:?}");
    }
}

#[test]
fn what_the_main_file_said_of_an_app_says_the_same_later() {
    const HEAD: &str = "[health]\npath = \"/up\"\n";
    let apps = [
        "[apps.api]\nhosts = [\n  \"a.test\", # first\n  'b.test',\n]\ncommand = [\"node\", \"a\\\"b\\n.js\"]\n\
         stop_timeout = \"7s\"\n[apps.api.env]\nA = \"1\"\n\"B\" = \"\"\"two\nlines\"\"\"\n[apps.api.drain]\nearly = true\n",
        "[apps.own]\nlisten = [\"127.0.0.1:9080\"]\ntargets = [\"127.0.0.1:8085\"]\nhealth.path = \"/own\"\n",
        "[apps.empty]\nenv = {}\ncommand = \"x\"\npaths = [\"/e\"]\n",
        "[apps.www]\nhosts = [\"www.test\"]\nredirect = \"https://example.com\"\n",
    ];
    let mut case = Case::file(&format!("{HEAD}{}", apps.concat()));
    let before = case.good();
    let before = several(&before).clone();
    assert!(before.texts.values().all(|said| said.in_main_file && !said.text.contains("/up")));
    case.write("api.toml", &format!("{HEAD}[apps]\n"));
    let kept =
        |(name, said): (&String, &AppText)| (name.clone(), KeptApp { said: said.clone(), has_record: true });
    case.sources.kept = before.texts.iter().map(kept).collect();
    let after = case.good();
    let after = several(&after);
    assert_eq!(after.folder, None, "no file of an app is expected");
    assert_eq!(after.gone.iter().collect::<Vec<_>>(), ["api", "empty", "own", "www"]);
    assert_eq!(after.texts, before.texts);
    for (name, app) in &before.apps {
        let place = case.config().display().to_string();
        assert_eq!(*after.apps[name], AppConfig { place, ..(**app).clone() });
    }
}
