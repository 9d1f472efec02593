use super::*;

#[test]
fn hosts_stay_in_redis() {
    let text = r#"{
    "server": {
        "debug": false,
        "accessLog": "/var/log/hipache/hipache.log",
        "workers": 10,
        "maxSockets": 100,
        "deadBackendTTL": 30,
        "tcpTimeout": 30,
        "retryOnError": 3,
        "deadBackendOn500": true,
        "httpKeepAlive": false,
        "staticDir": null
    },
    "http": { "port": 80, "bind": [ "0.0.0.0", { "address": "::1", "port": 8080 } ] },
    "https": { "port": 443, "bind": [ "0.0.0.0" ], "key": "/etc/ssl/ssl.key", "cert": "/etc/ssl/ssl.crt" },
    "driver": ["redis://:secret@10.0.0.7:6380/2#shop:", "redis://10.0.0.8"],
    "user": "www-data",
    "group": "www-data"
}"#;
    let imported = imported(Format::Hipache, text);
    assert_eq!(
        imported.toml,
        r#"# Written by `portok import hipache` from the file.
# The hosts and their targets stay where they are, in Redis.
listen = ["0.0.0.0:80", "[::1]:8080"]

[proxy]
# As hipache; without this it is 404.
no_route_status = 400

[redis]
url = "redis://10.0.0.7:6380/2"
prefix = "shop:"
# A file that holds the password, and that only portokd may read.
# password_file = "/etc/portok/redis.password"

[upstream]
keepalive = false
max_connections = 1000
read_timeout = "30s"
retries = 3
eject_for = "30s"
eject_on = [500, 501, 502, 503, 504]

[access]
file = "/var/log/hipache/hipache.log"
format = "hipache"

[apps]
# None in this file. One that is added here wins over a host in Redis.
"#
    );
    assert_eq!(
        imported.notes,
        [
            "driver: marks of dead targets are written to the server that the lists are read from",
            "redis: the password is left out: put it into a file and name that in redis.password_file",
            "redis: targets have to be private addresses (redis.allow); loopback and public ones only when named there",
            "server.workers: portok has one thread for each core, or proxy.threads; max_connections counts for all of them",
            "server.retryOnError: portok never sends a request twice that an app may have begun to carry out, unless it is idempotent",
            "https: TLS has no counterpart yet; another proxy has to end it before portok",
            "user: portokd runs as the user of its unit: portok init --user USER",
            "group: portokd runs as the user of its unit: portok init --user USER",
        ]
    );
    assert!(!format!("{imported:?}").contains("secret"));
    let config = loaded(&imported.toml);
    let redis = config.redis.unwrap();
    assert_eq!(
        (redis.server.to_string().as_str(), redis.prefix.as_str()),
        ("redis://10.0.0.7:6380/2", "shop:")
    );
    assert_eq!(config.proxy.no_route_status, 400);
    assert!(config.apps.unwrap().apps.is_empty());
}

/// The first lines that say where it listens, and where Redis is.
fn places(text: &str) -> (String, Option<String>) {
    let toml = imported(Format::Hipache, text).toml;
    loaded(&toml);
    let line = |key: &str| {
        toml.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).map(str::to_owned)
    };
    (line("listen").unwrap(), line("url"))
}

#[test]
fn the_older_forms_and_concussions_are_understood() {
    for (text, listen, redis) in [
        // hipache 0.4 without a word.
        ("{}", r#"["127.0.0.1:80"]"#, Some("redis://127.0.0.1:6379/0")),
        (r#"{"driver": "redis:"}"#, r#"["127.0.0.1:80"]"#, Some("redis://127.0.0.1:6379/0")),
        (
            r#"{"http": {"port": 1080}, "driver": "redis:///1"}"#,
            r#"["127.0.0.1:1080"]"#,
            Some("redis://127.0.0.1:6379/1"),
        ),
        (r#"{"http": {"bind": "::"}}"#, r#"["0.0.0.0:80", "[::]:80"]"#, Some("redis://127.0.0.1:6379/0")),
        (r#"{"driver": "redis://db.example:7"}"#, r#"["127.0.0.1:80"]"#, Some("redis://db.example:7/0")),
        // 0.2 and 0.3.
        (
            r#"{"server": {"port": 80, "address": ["127.0.0.1"], "address6": ["::1"]}, "redisHost": "10.0.0.7", "redisPort": "6380", "redisDatabase": 3}"#,
            r#"["127.0.0.1:80", "[::1]:80"]"#,
            Some("redis://10.0.0.7:6380/3"),
        ),
        (
            r#"{"server": {"port": 8080}}"#,
            r#"["0.0.0.0:8080", "[::]:8080"]"#,
            Some("redis://127.0.0.1:6379/0"),
        ),
        // Concussion.
        (
            r#"{"server": {"debug": true, "accessLog": "/var/log/hipache_access.log", "port": 80, "workers": 1, "maxSockets": 100, "deadBackendTTL": 30},
               "redis": {"port": 6379, "host": "127.0.0.1"}}"#,
            r#"["0.0.0.0:80", "[::]:80"]"#,
            Some("redis://127.0.0.1:6379/0"),
        ),
        (r#"{"redis": {"host": "::1"}}"#, r#"["127.0.0.1:80"]"#, Some("redis://[::1]:6379/0")),
        (r#"{"redisHost": "db", "redisPassword": 123}"#, r#"["127.0.0.1:80"]"#, Some("redis://db:6379/0")),
        // Another store: nothing is routed.
        (r#"{"driver": "etcd://10.0.0.7:4001"}"#, r#"["127.0.0.1:80"]"#, None),
    ] {
        let redis = redis.map(|url| format!("{url:?}"));
        assert_eq!(places(text), (listen.to_owned(), redis), "{text}");
    }
}

#[test]
fn strange_configurations_are_refused_with_all_that_is_wrong() {
    let text = r#"{
        "server": {"port": "eighty", "workers": -1, "deadBackendTTL": true, "httpKeepAlive": "no"},
        "http": {"bind": ["example.com", {"port": 80}, 7, {"address": "::1", "port": 0}]},
        "driver": "http://10.0.0.7"
    }"#;
    let bind = "expected an IP address, or an object of address and port";
    assert_eq!(
        refused(Format::Hipache, text),
        [
            "server.port = \"eighty\": expected a whole number from 1 to 65535".to_owned(),
            format!("http.bind = \"example.com\": {bind}"),
            format!("http.bind = {{\"port\":80}}: {bind}"),
            format!("http.bind = 7: {bind}"),
            format!("http.bind = {{\"address\":\"::1\",\"port\":0}}: {bind}"),
            "driver: expected a URL such as \"redis://:password@host:port/database#prefix\"".to_owned(),
            "server.httpKeepAlive = \"no\": expected true or false".to_owned(),
            "server.workers = -1: expected a whole number from 0 to 100000".to_owned(),
            "server.deadBackendTTL = true: expected a whole number from 1 to 604800".to_owned(),
        ]
    );
    for driver in
        ["redis://10.0.0.7:port", "redis://10.0.0.7/zero", "redis://a b", "redis", "", "redis://\u{0}"]
    {
        let text = serde_json::json!({ "driver": driver }).to_string();
        assert_eq!(refused(Format::Hipache, &text).len(), 1, "{driver:?}");
    }
}

#[test]
fn what_hipache_has_not_is_told() {
    let imported =
        imported(Format::Hipache, r#"{"server": {"port": 80, "frob": 1}, "mongodb": {"port": 27017}}"#);
    for place in ["server.frob: hipache has no such key", "mongodb: hipache has no such key"] {
        assert!(notes(&imported, &[place]), "{:#?}", imported.notes);
    }
}
