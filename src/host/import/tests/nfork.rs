use std::time::Duration;

use super::*;

#[test]
fn each_inbound_is_an_app_at_its_own_address() {
    let text = r#"[
    {
        "name": "foo",
        "listen": ":9080",
        "out": { "prod": "localhost:8080", "staging": "localhost:8081", "logging": "localhost:8082" },
        "active": "prod",
        "timeout": "100ms",
        "timeoutCode": 500,
        "idleConn": 64
    },
    {
        "listen": "127.0.0.1:9081",
        "out": { "prod": "http://192.168.0.42" },
        "active": "prod",
        "timeout": "1m30s"
    }
]"#;
    let imported = imported(Format::Nfork, text);
    assert_eq!(
        imported.toml,
        r#"# Written by `portok import nfork` from the file.
# Each app answers at addresses of its own.
# For apps without an address of their own. There is none.
listen = "127.0.0.1:0"

[apps.foo]
listen = ["0.0.0.0:9080", "[::]:9080"]
targets = ["127.0.0.1:8080"]

[apps.foo.upstream]
timeout = "100ms"
timeout_status = 500
max_idle = 64

[apps.127-0-0-1-9081]
listen = ["127.0.0.1:9081"]
targets = ["192.168.0.42:80"]

[apps.127-0-0-1-9081.upstream]
timeout = "90s"
timeout_status = 503
"#
    );
    assert_eq!(
        imported.notes,
        [
            "[0].out.logging: copies of requests to \"localhost:8082\" have no counterpart yet",
            "[0].out.staging: copies of requests to \"localhost:8081\" have no counterpart yet",
            "[1]: the app \"127.0.0.1:9081\" is called 127-0-0-1-9081: a name is 1 to 64 letters, digits, `_` or `-`, and no two apps have the same",
            "Host: nfork sends its target's name as Host, and X-Nfork: true; portok sends the client's Host",
        ]
    );
    let several = loaded(&imported.toml).apps.unwrap();
    let foo = &several.apps["foo"];
    assert_eq!(foo.routes.listen.len(), 2);
    assert!(foo.routes.hosts.is_empty(), "{:?}", foo.routes);
    assert_eq!(foo.upstream.timeout, Some(Duration::from_millis(100)));
    assert_eq!(several.apps["127-0-0-1-9081"].targets, Some(vec!["192.168.0.42:80".parse().unwrap()]));
}

#[test]
fn strange_inbounds_are_refused_with_all_that_is_wrong() {
    let text = r#"[
        {"listen": "9080", "out": {"a": "backend.example:80"}, "active": "a", "timeout": "100", "timeoutCode": 200},
        {"listen": ":0", "out": {"a": "x", "b": "y"}, "active": "c", "idleConn": -1},
        {"out": [], "active": 1},
        7
    ]"#;
    assert_eq!(
        refused(Format::Nfork, text),
        [
            "[0].listen = \"9080\": expected an address with a port, such as \":9080\" or \"127.0.0.1:9080\"",
            "[0].out.a = \"backend.example:80\": expected an IP address with a port, or localhost, over http: portok's targets are no names (and no https)",
            "[0].timeout = \"100\": expected a time as Go writes it, such as \"100ms\", up to 168h",
            "[0].timeoutCode = 200: expected a whole number from 400 to 599",
            "[1].listen = \":0\": expected an address with a port, such as \":9080\" or \"127.0.0.1:9080\"",
            "[1].active = \"c\": expected one of the names in out: \"a\", \"b\"",
            "[1].idleConn = -1: expected a whole number from 0 to 65535",
            "[2].listen: expected an address with a port, such as \":9080\" or \"127.0.0.1:9080\"",
            "[2].active = 1: expected a string",
            "[2].out: expected an object of names and addresses",
            "[3] = 7: expected an inbound: an object with listen, out and active",
            "the file: expected an array with at least one inbound that portok can serve",
        ]
    );
}

#[test]
fn no_request_goes_in_a_circle_and_no_address_is_listened_on_twice() {
    let inbound = |listen: &str, target: &str| serde_json::json!({"listen": listen, "out": {"a": target}, "active": "a"});
    let inbounds =
        [inbound(":1", "localhost:2"), inbound("127.0.0.1:2", "10.0.0.1:1"), inbound("[::]:1", "[::1]:3")];
    assert_eq!(
        refused(Format::Nfork, &Value::from(inbounds.to_vec()).to_string()),
        [
            "[2].listen: expected an address of its own, and not [::]:1, another inbound's",
            "[0].out: 127.0.0.1:2 is where an inbound listens: requests would go in a circle",
        ]
    );
    for nowhere in ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "127.0.0.1:0", "[::]:80"] {
        refused(Format::Nfork, &inbound(":1", nowhere).to_string());
    }
}

#[test]
fn the_sample_of_nfork_itself_is_no_json() {
    // It has a comma too many, and nforkd refuses it too.
    let text = "[{\"listen\": \":1\", \"out\": {\"a\": \"localhost\"}, \"active\": \"a\",}]";
    assert!(refused(Format::Nfork, text)[0].starts_with("1:"));
}
