//! How many requests a client may make in a time, on every way that a request may take.

use super::*;

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

async fn app() -> Backend {
    Backend::start(|mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let upgrades = request.windows(9).any(|part| part == b"websocket");
            connection.send(if upgrades { SWITCHED } else { OK }).await;
        }
    })
    .await
}

/// The tiers that a file of configuration says in this table; `keys`: what the file of keys holds.
fn tiers(table: &str, keys: &str) -> Option<Arc<Tiers>> {
    let folder = tempfile::tempdir().unwrap();
    let [file, path] = ["a.toml", "keys"].map(|name| folder.path().join(name));
    for file in [&file, &path] {
        std::fs::write(file, keys).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let table = table.replace("KEYS", &path.display().to_string());
    let state = folder.path().join("state.json");
    let text = format!("state_file = \"{}\"\n[app]\ntarget = 1\ntiers = {{ {table} }}\n", state.display());
    std::fs::write(&file, text).unwrap();
    load(&Sources { file: Some(file), ..Sources::default() }).unwrap().app.tiers.clone()
}

/// `GET` with these further fields.
fn with(fields: &str) -> String {
    GET.replace("\r\n\r\n", &format!("\r\n{fields}\r\n\r\n"))
}

/// The status, and what is left of the tier.
fn told(reply: &Reply) -> (u16, String) {
    (reply.status(), reply.header("ratelimit").unwrap_or_default().to_owned())
}

fn left(tier: &str, left: u32, seconds: u32) -> String {
    format!("\"{tier}\";r={left};t={seconds}")
}

#[tokio::test]
async fn one_request_too_many_is_told_when_to_come_again_on_every_way() {
    let app = app().await;
    let rig = Rig::serving(&app, |config| {
        of_app(config).tiers = tiers("by = \"address\", anonymous = \"4/1h\"", "");
    });
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx";
    for (number, request) in [GET, post, UPGRADE, GET].into_iter().enumerate() {
        let reply = rig.ask(request).await;
        let status = if request == UPGRADE { 101 } else { 200 };
        let [policy, standing] = ["ratelimit-policy", "ratelimit"].map(|name| reply.header(name).unwrap());
        assert_eq!((reply.status(), policy), (status, "\"anonymous\";q=4;w=3600"));
        assert!(standing.starts_with(&format!("\"anonymous\";r={};t=", 3 - number)), "{standing}");
    }
    for request in [GET, post, UPGRADE] {
        let reply = rig.ask(request).await;
        assert_eq!((reply.status(), reply.header("portok-error")), (429, Some("tier_limit")));
        let seconds: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((3_500..=3_600).contains(&seconds), "{seconds}");
        assert_eq!(told(&reply), (429, left("anonymous", 0, seconds)));
        assert_eq!(reply.header("ratelimit-policy"), Some("\"anonymous\";q=4;w=3600"));
        assert!(reply.text().contains("\"code\":\"tier_limit\""), "{}", reply.text());
    }
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.by_class[3], snapshot.total_proxy_errors), (3, 0), "a limit is no error");
    assert!(snapshot.requests_refused.contains(&("tier_limit", 3)), "{:?}", snapshot.requests_refused);
    assert_eq!(app.seen().concat().matches(" / HTTP").count(), 4, "the app sees none that was refused");
}

#[tokio::test]
async fn a_known_key_has_its_tier_wherever_it_comes_from_and_its_new_one_at_once() {
    let app = app().await;
    let table = "by = \"header:x-api-key\", keys = \"KEYS\", anonymous = \"1/1h\", gold = \"3/1h\"";
    let configured = |keys: &str| {
        let mut config = config();
        of_app(&mut config).tiers = tiers(table, keys);
        config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
        config
    };
    let mut rig = Rig::serving(&app, |config| *config = configured("Bearer one gold\ntwo gold\n"));
    let ask = async |rig: &Rig, key: &str, client: &str| {
        let reply = rig.ask(with(&format!("x-api-key: {key}\r\nx-forwarded-for: {client}"))).await;
        let standing = reply.header("ratelimit").unwrap().split(";t=").next().unwrap().to_owned();
        (reply.status(), standing)
    };
    let is = |status, standing: &str| (status, standing.to_owned());
    assert_eq!(ask(&rig, "Bearer one", "10.0.0.1").await, is(200, "\"gold\";r=2"));
    assert_eq!(ask(&rig, "Bearer one", "10.0.0.2").await, is(200, "\"gold\";r=1"));
    assert_eq!(ask(&rig, "two", "10.0.0.2").await, is(200, "\"gold\";r=2"));
    assert_eq!(ask(&rig, "unknown", "10.0.0.1").await, is(200, "\"anonymous\";r=0"));
    assert_eq!(ask(&rig, "other", "10.0.0.1").await, is(429, "\"anonymous\";r=0"));
    assert_eq!(ask(&rig, "other", "10.0.0.3").await, is(200, "\"anonymous\";r=0"), "another client");

    rig.plane.configure(Arc::new(configured("Bearer one anonymous\nother gold\n")));
    assert_eq!(ask(&rig, "Bearer one", "10.0.0.4").await, is(429, "\"anonymous\";r=0"), "it has made two");
    assert_eq!(ask(&rig, "other", "10.0.0.1").await, is(200, "\"gold\";r=2"));
    assert_eq!(ask(&rig, "two", "10.0.0.2").await, is(200, "\"anonymous\";r=0"), "no key any more");
    rig.plane.configure(Arc::new(configured("Bearer one gold\n")));
    assert_eq!(
        ask(&rig, "Bearer one", "10.0.0.4").await,
        is(200, "\"gold\";r=0"),
        "what it made is not forgotten"
    );

    let mut off = configured("");
    of_app(&mut off).tiers = None;
    rig.plane.configure(Arc::new(off));
    assert_eq!(rig.ask(GET).await.header("ratelimit"), None);
}

#[tokio::test]
async fn too_many_at_once_are_refused_before_they_count() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /held ") {
                connection.is_closed().await;
                return;
            }
            connection.send(OK).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| {
        let app = of_app(config);
        app.tiers = tiers("anonymous = \"9/1h\"", "");
        app.limits.requests_per_address = Some(1);
    });
    let mut held = rig.connect().await;
    held.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("it is under way", || rig.counters.snapshot().inflight == 1).await;
    let refused = rig.ask(GET).await;
    assert_eq!((refused.status(), refused.header("portok-error")), (429, Some("too_many_at_once")));
    assert_eq!(refused.header("ratelimit"), None);
    drop(held);
    eventually("it has ended", || rig.counters.snapshot().inflight == 0).await;
    assert!(told(&rig.ask(GET).await).1.starts_with("\"anonymous\";r=7;"));
}
