//! The order of the ways, by what is given.

use super::super::testing::around;
use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn tcp(host: &str, port: u16, token: Token) -> Way {
    Way::Tcp { host: host.into(), port, token }
}

fn value(token: &str) -> Token {
    Token::Value(Secret::new(token.into()))
}

fn by_name(name: &str) -> Global {
    Global { instance: Some(name.into()), ..Global::default() }
}

#[test]
fn the_first_that_is_given_wins() {
    let folder = folder();
    std::fs::write(folder.path().join("api.toml"), "listen = 4000\n[admin]\ntoken = \"file\"").unwrap();
    let mut surroundings = around(folder.path());
    surroundings.url = Some("http://env:5000".into());
    surroundings.token = Some(Secret::new("env".into()));
    let mut global = Global { url: Some("http://host:6000".into()), ..by_name("api") };
    let ways = |global: &Global, around: &Surroundings| locate(global, around).unwrap().ways;
    assert_eq!(ways(&global, &surroundings), [tcp("host", 6000, value("env"))]);
    global.token = Some("typed".into());
    assert_eq!(ways(&global, &surroundings), [tcp("host", 6000, value("typed"))]);
    global.url = None;
    global.socket = Some("/s".into());
    assert_eq!(ways(&global, &surroundings), [Way::Socket("/s".into())]);
    global.socket = None;
    let socket = |name: &str| Way::Socket(folder.path().join(name).join("admin.sock"));
    assert_eq!(ways(&global, &surroundings), [socket("api"), tcp("127.0.0.1", 4000, value("typed"))]);
    global.token = None;
    assert_eq!(ways(&global, &surroundings), [socket("api"), tcp("127.0.0.1", 4000, value("file"))]);
    global.instance = None;
    assert_eq!(ways(&global, &surroundings), [tcp("env", 5000, value("env"))]);
    surroundings.url = None;
    surroundings.token = None;
    assert_eq!(ways(&global, &surroundings), [socket("default"), tcp("127.0.0.1", 3000, Token::None)]);
}

#[test]
fn only_sockets_that_may_be_there_are_tried() {
    let folder = folder();
    let base = folder.path().to_owned();
    let mut surroundings = around(folder.path());
    surroundings.socket_places =
        Box::new(move |name| ["a", "b", "c"].iter().map(|place| base.join(place).join(name)).collect());
    std::fs::create_dir(folder.path().join("b")).unwrap();
    std::fs::write(folder.path().join("b/api"), "").unwrap();
    let ways = locate(&by_name("api"), &surroundings).unwrap().ways;
    assert_eq!(ways, [Way::Socket(folder.path().join("b/api"))]);
    let ways = locate(&by_name("web"), &surroundings).unwrap().ways;
    assert_eq!(ways, [Way::Socket(folder.path().join("a/web"))]);
}

#[test]
fn the_environment_file_lies_over_the_toml_file() {
    let folder = folder();
    let toml = "name = \"web\"\nlisten = \"[::]:4000\"\nunknown = 1\n[admin]\ntoken_file = \"/t\"\nprefix = \"/adm_\"\n";
    std::fs::write(folder.path().join("api.toml"), toml).unwrap();
    let surroundings = around(folder.path());
    let daemon = locate(&by_name("api"), &surroundings).unwrap();
    let socket = Way::Socket(folder.path().join("web/admin.sock"));
    assert_eq!(daemon.ways, [socket, tcp("::1", 4000, Token::File("/t".into()))]);
    assert_eq!(daemon.prefix, "/adm_");
    let env =
        "# comment\n LISTEN_PORT = 4001 \nADMIN_TOKEN=\"quo ted\"\nADMIN_UNIX_SOCKET='/x.sock'\nnoise\n";
    std::fs::write(folder.path().join("api.env"), env).unwrap();
    let daemon = locate(&by_name("api"), &surroundings).unwrap();
    assert_eq!(daemon.ways, [Way::Socket("/x.sock".into()), tcp("127.0.0.1", 4001, value("quo ted"))]);
}

#[test]
fn no_token_is_sent_where_the_admin_paths_belong_to_the_app() {
    let folder = folder();
    std::fs::write(folder.path().join("api.toml"), "[admin]\npublic = false\ntoken = \"t\"").unwrap();
    let ways = locate(&by_name("api"), &around(folder.path())).unwrap().ways;
    assert_eq!(ways, [Way::Socket(folder.path().join("api/admin.sock"))]);
}

#[test]
fn a_file_that_may_not_be_read_is_no_hindrance_for_the_socket() {
    let folder = folder();
    let surroundings = around(folder.path());
    let unreadable =
        || Err(Unreadable { message: "cannot read x".into(), hint: Some("use sudo".into()), denied: true });
    let failure = instance("api", None, &surroundings, unreadable()).unwrap_err();
    assert_eq!(failure, Failure::usage("cannot read x", "use sudo"));
    std::fs::create_dir(folder.path().join("api")).unwrap();
    std::fs::write(folder.path().join("api/admin.sock"), "").unwrap();
    let daemon = instance("api", None, &surroundings, unreadable()).unwrap();
    assert_eq!(daemon.ways, [Way::Socket(folder.path().join("api/admin.sock"))]);
    assert!(daemon.advice.contains("cannot read x"), "{}", daemon.advice);
}

#[test]
fn a_file_that_is_not_toml_is_wrong_configuration() {
    let folder = folder();
    std::fs::write(folder.path().join("api.toml"), "listen = \n").unwrap();
    let failure = locate(&by_name("api"), &around(folder.path())).unwrap_err();
    assert_eq!(failure.exit_code(), 2);
    assert!(
        matches!(failure, Failure::Usage { message, .. } if message.contains("api.toml:1: not valid TOML"))
    );
}

#[test]
fn a_broken_file_is_told_and_no_hindrance_for_the_socket() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("api")).unwrap();
    std::fs::write(folder.path().join("api/admin.sock"), "").unwrap();
    for broken in [&b"listen = [\n"[..], b"\xff\n"] {
        std::fs::write(folder.path().join("api.toml"), broken).unwrap();
        let daemon = locate(&by_name("api"), &around(folder.path())).unwrap();
        assert_eq!(daemon.ways, [Way::Socket(folder.path().join("api/admin.sock"))]);
        let told = daemon.broken_file.unwrap();
        assert!(told.contains("api.toml"), "{told}");
    }
}

#[test]
fn urls_are_taken_apart() {
    let table = [
        ("http://127.0.0.1:3000", "127.0.0.1", 3000, "/__"),
        ("http://localhost", "localhost", 80, "/__"),
        ("http://[::1]:3000/", "::1", 3000, "/__"),
        ("http://[::1]", "::1", 80, "/__"),
        ("http://h:1/_adm_", "h", 1, "/_adm_"),
    ];
    for (url, host, port, prefix) in table {
        let (way, found) = parse_url("--url", url, Token::None).unwrap();
        assert_eq!((way, found.as_str()), (tcp(host, port, Token::None), prefix), "{url}");
    }
    let bad = [
        ("https://h:1", "TLS is not spoken"),
        ("ftp://h", "not an http URL"),
        ("h:3000", "not an http URL"),
        ("", "not a URL"),
        ("http://h:0", "port 0"),
        ("http://h:99999", ""),
        ("http://h:1/?x=1", "a query"),
        ("http://me:s3cret@h:1", "a user in a URL"),
    ];
    for (url, why) in bad {
        let Err(Failure::Usage { message, .. }) = parse_url("--url", url, Token::None) else {
            panic!("{url}")
        };
        assert!(message.contains(why) && !message.contains("s3cret"), "{url}: {message}");
    }
}

#[test]
fn who_is_not_there_is_started_by_what_started_it() {
    let folder = folder();
    let mut surroundings = around(folder.path());
    let advice = |name: &str, around: &Surroundings| locate(&by_name(name), around).unwrap().advice;
    let told = advice("nobody", &surroundings);
    assert!(told.contains("there is no nobody.toml") && !told.contains("systemctl"), "{told}");
    std::fs::write(folder.path().join("api.toml"), "listen = 4000\n").unwrap();
    assert_eq!(advice("api", &surroundings), "start it: portokd --instance api");
    surroundings.systemd = true;
    assert!(advice("api", &surroundings).contains("portok start api"));
}

#[test]
fn the_token_of_an_instance_of_several_apps_goes_to_no_app() {
    let folder = folder();
    let file = "listen = 4000\n[admin]\ntoken = \"file\"\n";
    let ways = |text: &str| {
        std::fs::write(folder.path().join("api.toml"), text).unwrap();
        locate(&by_name("api"), &around(folder.path())).unwrap().ways.len()
    };
    assert_eq!(ways(file), 2);
    assert_eq!(ways(&format!("{file}[apps]\n")), 1);
    std::fs::create_dir(folder.path().join("api.d")).unwrap();
    assert_eq!((ways(file), ways(&format!("{file}[app]\n"))), (1, 2));
    assert_eq!(ways(&format!("{file}public = true\n")), 2);
}
