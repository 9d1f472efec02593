//! What does not go together with `mode = "tcp"`, and what that needs: an app whose clients bring
//! connections of any protocol, at addresses of its own or, by the name that a client asks for in
//! TLS, at those of `tls.listen` (`tls = "passthrough"`). Pure.

use super::keys::{is_in, keys};
use super::read::Reader;
use super::{AppConfig, Hosts, Mode, Sticky, TierBy, tiers};

const MODE: &str = "app.mode";

/// The key whose value `"passthrough"` leaves TLS to the app.
pub(super) const PASSTHROUGH: &str = "app.tls";

const HOSTS: &str = "app.hosts";

/// Keys, and tables of keys, that say how HTTP is read or answered, or bound its requests. What bounds
/// connections is `limits.requests_per_address`, `limits.tunnel_idle` and `upstream.max_connections`.
const OF_HTTP: [&str; 17] = [
    "app.paths",
    "app.strip_prefix",
    "app.tls.cert",
    "app.tls.key",
    "upstream.protocol",
    "upstream.keepalive",
    "upstream.response_timeout",
    "upstream.read_timeout",
    "upstream.timeout",
    "upstream.timeout_status",
    "upstream.idle_timeout",
    "upstream.max_idle",
    "upstream.eject_on",
    "limits.body_timeout",
    "limits.send_timeout",
    "limits.tunnels",
    "errors",
];

/// Whether `app` brings connections, and the key called `name` says how HTTP is read or answered.
pub(super) fn has_no_use_for(app: &AppConfig, name: &str) -> bool {
    app.mode == Mode::Tcp && OF_HTTP.iter().any(|useless| name == *useless || is_in(name, useless))
}

/// Checks an app with a mode. `has_tls`: whether the instance listens for TLS anywhere; `is_set`:
/// whether it is set for the app itself what is asked for its health.
pub(super) fn fits(r: &mut Reader<'_>, config: &mut AppConfig, has_tls: bool, is_set: bool) {
    if config.mode == Mode::Http {
        if config.routes.passthrough {
            let mode = r.called(MODE);
            let expected =
                format!("{mode} = \"tcp\" beside it: portok does not read what it does not decrypt");
            r.reject(PASSTHROUGH, &expected);
        }
        return;
    }
    if !is_set {
        config.health.tcp = true;
        config.health.grpc = None;
    }
    if r.is_of_several() {
        comes_in(r, config, has_tls);
    } else if has_tls {
        let expected = "nothing, because app.mode = \"tcp\": one app alone is reached by listen, and with TLS \
                        of its own; of several apps each says for itself what it does with TLS";
        r.reject("tls.listen", expected);
    }
    reads_no_http(r, config);
}

/// Checks how connections find the app, which is one of several.
fn comes_in(r: &mut Reader<'_>, config: &AppConfig, has_tls: bool) {
    let routes = &config.routes;
    if !routes.passthrough {
        if routes.listen.is_empty() && !r.in_file("app.listen") {
            let expected = "`listen` with addresses of the app's own beside it, or `tls = \"passthrough\"` and `hosts`: \
                            nothing else says which connections are for it";
            r.reject(MODE, expected);
        }
        if r.in_file(HOSTS) {
            let expected =
                "nothing without `tls = \"passthrough\"`: no connection but one of TLS names a host";
            r.reject(HOSTS, expected);
        }
        return;
    }
    if !has_tls {
        r.reject(PASSTHROUGH, "nothing, because tls.listen is not set");
    }
    if !r.in_file(HOSTS) {
        r.reject(PASSTHROUGH, "`hosts` beside it: the names that its clients ask for in TLS");
    } else if routes.hosts.iter().any(|hosts| !is_named_in_tls(hosts)) {
        let expected =
            "names, and `*.` with a name: whoever asks for another name, or none, is portok's own client";
        r.reject(HOSTS, expected);
    }
}

/// Whether a client can ask for it in TLS.
fn is_named_in_tls(hosts: &Hosts) -> bool {
    match hosts {
        Hosts::Exact(host) => !host.is_address(),
        Hosts::Below(_) => true,
        Hosts::Any => false,
    }
}

/// Rejects what is set for the app although it says how HTTP is read.
fn reads_no_http(r: &mut Reader<'_>, config: &AppConfig) {
    let because = |r: &Reader<'_>| format!("because {} = \"tcp\"", r.called(MODE));
    for key in keys().filter(|key| has_no_use_for(config, key.name)) {
        if r.is_set(key.name) {
            let expected = format!("nothing, {}: portok reads no HTTP there", because(r));
            r.reject(key.name, &expected);
        }
    }
    if config.sticky == Sticky::Cookie && r.is_set("app.sticky") {
        let expected = format!("\"off\" or \"address\", {}: there are no cookies", because(r));
        r.reject("app.sticky", &expected);
    }
    let by_field = |tiers: &super::Tiers| matches!(tiers.by, TierBy::Header(_));
    if config.tiers.as_deref().is_some_and(by_field) {
        let expected = format!("by = \"address\", {}: there are no fields", because(r));
        r.reject(tiers::KEY, &expected);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;

    const TLS: &str = "[tls]\nlisten = \"127.0.0.1:1\"\n";

    fn db(lines: &str) -> String {
        format!("{TLS}[apps.db]\nmode = \"tcp\"\ncommand = \"x\"\n{lines}\n")
    }

    #[test]
    fn what_reads_http_is_refused_where_it_is_set() {
        let listen = "listen = \"127.0.0.1:5432\"\n";
        for (line, expected) in [
            ("paths = [\"/x\"]", "apps.db.paths"),
            ("strip_prefix = true", "apps.db.strip_prefix = true: expected nothing"),
            ("sticky = \"cookie\"", "apps.db.sticky = \"cookie\": expected \"off\" or \"address\""),
            ("errors.dir = \"/tmp\"", "apps.db.errors.dir"),
            ("tls = { cert = \"/a\", key = \"/b\" }", "apps.db.tls.cert"),
            ("upstream.protocol = \"h2c\"", "apps.db.upstream.protocol = \"h2c\": expected nothing"),
            ("upstream.response_timeout = \"1s\"", "apps.db.upstream.response_timeout"),
        ] {
            let errors = Case::file(&db(&format!("{listen}{line}"))).problems();
            let told = |error: &String| error.contains(expected) && error.contains("mode = \"tcp\"");
            assert!(errors.iter().any(told), "{line}: {errors:#?}");
        }
        let case = Case::file("");
        let keys = case.write("keys", "");
        let tiers = format!("tiers = {{ by = \"header:x\", keys = {keys:?}, anonymous = \"5/1m\" }}");
        case.write("api.toml", &db(&format!("{listen}{tiers}")));
        let errors = case.problems();
        assert!(
            errors[0].contains("apps.db.tiers") && errors[0].contains("by = \"address\", because"),
            "{errors:#?}"
        );
        let one = |rest: &str| format!("[app]\nmode = \"tcp\"\ncommand = \"x\"\n{rest}");
        for (rest, expected) in [
            ("[upstream]\neject_on = [500]", "upstream.eject_on = [500]: expected nothing, because app.mode"),
            (TLS, "tls.listen = \"127.0.0.1:1\": expected nothing, because app.mode"),
        ] {
            let errors = Case::file(&one(rest)).problems();
            assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:#?}");
        }
        let config = Case::file(&one("")).good();
        assert!(config.app.health.tcp, "an accepted connection is healthy");
        let config = Case::file(&one("[health]\npath = \"/x\"")).good();
        assert!(!config.app.health.tcp, "what is set for the app is asked");
    }

    #[test]
    fn an_app_of_connections_says_which_are_for_it() {
        for (lines, expected) in [
            ("", "apps.db.mode = \"tcp\": expected `listen`"),
            ("hosts = [\"a.test\"]\nlisten = 5432", "apps.db.hosts = [\"a.test\"]: expected nothing without"),
            ("tls = \"passthrough\"", "apps.db.tls = \"passthrough\": expected `hosts`"),
            ("tls = \"passthrough\"\nhosts = [\"*\"]", "apps.db.hosts = [\"*\"]: expected names"),
            (
                "tls = \"passthrough\"\nhosts = [\"10.0.0.1\"]",
                "apps.db.hosts = [\"10.0.0.1\"]: expected names",
            ),
            ("tls = \"other\"", "apps.db.tls = \"other\": expected \"passthrough\""),
        ] {
            let errors = Case::file(&db(lines)).problems();
            assert!(errors.iter().any(|error| error.contains(expected)), "{lines}: {errors:#?}");
        }
        let without = db("tls = \"passthrough\"\nhosts = [\"a.test\"]").replace(TLS, "");
        let errors = Case::file(&without).problems();
        assert!(errors[0].contains("expected nothing, because tls.listen is not set"), "{errors:#?}");
        let http = format!("{TLS}[apps.db]\ncommand = \"x\"\nhosts = [\"a.test\"]\ntls = \"passthrough\"");
        let errors = Case::file(&http).problems();
        assert!(errors[0].contains("apps.db.mode = \"tcp\" beside it"), "{errors:#?}");
    }

    #[test]
    fn what_is_shown_loads_as_the_same() {
        let apps = "[apps.name]\nmode = \"tcp\"\ntls = \"passthrough\"\nhosts = [\"a.test\", \"*.b.test\"]\n\
                    targets = [\"127.0.0.1:9\"]\nupstream.proxy_protocol = \"v2\"\n\
                    [apps.own]\nmode = \"tcp\"\nlisten = 5432\ncommand = \"x\"\nsticky = \"address\"\n\
                    tiers = { by = \"address\", anonymous = \"5/1m\" }\n";
        let several = format!("[upstream]\nprotocol = \"h2c\"\n[health]\npath = \"/all\"\n{TLS}{apps}");
        for text in [several, "[app]\nmode = \"tcp\"\ntarget = 5\n[health]\npath = \"/x\"\n".to_owned()] {
            let case = Case::file(&text);
            let shown = case.good().effective_toml();
            case.write("api.toml", &shown);
            assert_eq!(case.good().effective_toml(), shown);
        }
    }

    #[test]
    fn a_connection_that_names_its_client_is_not_kept() {
        let with = |rest: &str| format!("[app]\ntarget = 5\n[upstream]\nproxy_protocol = \"v2\"\n{rest}");
        assert!(!Case::file(&with("")).good().app.upstream.keepalive);
        let errors = Case::file(&with("keepalive = true")).problems();
        assert!(errors[0].contains("upstream.keepalive = true: expected false, because"), "{errors:?}");
    }
}
