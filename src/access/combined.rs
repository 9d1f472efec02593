//! The combined log format of Apache and nginx, and what it lacks behind it as `name=value`. Pure.

use std::fmt::{Display, Write as _};

use super::entry::{Entry, Text};
use super::format::{clf_time, escaped, millis, quoted};

/// Stands for what is not known.
const ABSENT: &str = "-";

pub(super) fn write(out: &mut String, entry: &Entry) {
    let _ = write!(out, "{} - - [", entry.client);
    clf_time(out, entry.time);
    out.push_str("] \"");
    escaped(out, entry.text(Text::Method).unwrap_or(ABSENT.as_bytes()));
    out.push(' ');
    escaped(out, entry.text(Text::Path).unwrap_or(ABSENT.as_bytes()));
    let _ = write!(out, " {}\" {} {} ", entry.proto, entry.status, entry.bytes_out);
    quoted(out, entry.text(Text::Referer), ABSENT);
    out.push(' ');
    quoted(out, entry.text(Text::UserAgent), ABSENT);
    text(out, "host", entry.text(Text::Host));
    text(out, "app", entry.app.as_ref().map(|app| app.as_bytes()));
    text(out, "release", entry.text(Text::Release));
    value(out, "replica", entry.replica);
    value(out, "port", entry.port);
    value(out, "bytes_in", Some(entry.bytes_in));
    out.push_str(" duration_ms=");
    millis(out, entry.duration);
    out.push_str(" upstream_ms=");
    match entry.upstream {
        Some(time) => millis(out, time),
        None => out.push_str(ABSENT),
    }
    value(out, "retried", Some(entry.retried));
    value(out, "error", entry.error);
    value(out, "tunnel", Some(entry.tunnel));
    text(out, "request_id", entry.text(Text::RequestId));
    text(out, "trace_id", entry.text(Text::TraceId));
    text(out, "tier", entry.tier.as_ref().map(|tier| tier.as_bytes()));
}

fn text(out: &mut String, name: &str, bytes: Option<&[u8]>) {
    let _ = write!(out, " {name}=");
    quoted(out, bytes, ABSENT);
}

fn value(out: &mut String, name: &str, value: Option<impl Display>) {
    let _ = match value {
        Some(value) => write!(out, " {name}={value}"),
        None => write!(out, " {name}={ABSENT}"),
    };
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{empty, full};
    use super::*;

    fn line(entry: &Entry) -> String {
        let mut line = String::new();
        write(&mut line, entry);
        line
    }

    #[test]
    fn it_begins_as_everybody_knows_it() {
        let expected = concat!(
            r#"192.0.2.7 - - [16/Feb/2014:00:43:10 +0000] "POST /cart?id=7 HTTP/1.1" 502 3236 "#,
            r#""https://shop.example.com/" "curl/8.0" host="shop.example.com" app="shop" release="v7" "#,
            "replica=1 port=41234 bytes_in=12 duration_ms=11.042 upstream_ms=9.007 retried=true ",
            "error=upstream_reset tunnel=true ",
            r#"request_id="0af7651916cd43dd8448eb211c80319c" trace_id="4bf92f3577b34da6a3ce929d0e0e4736" "#,
            r#"tier="premium""#,
        );
        assert_eq!(line(&full()), expected);
        let expected = concat!(
            r#"2001:db8::1 - - [01/Jan/1970:00:00:00 +0000] "- - HTTP/1.0" 0 0 "-" "-" host="-" app="-" "#,
            r#"release="-" replica=- port=- bytes_in=0 duration_ms=0.000 upstream_ms=- retried=false "#,
            r#"error=- tunnel=false request_id="-" trace_id="-" tier="-""#,
        );
        assert_eq!(line(&empty()), expected);
    }

    #[test]
    fn quotes_are_escaped_as_nginx_does() {
        let mut entry = empty();
        entry.set(Text::UserAgent, b"a\"b\\c\nd\xc3\xa4");
        assert!(line(&entry).contains(r#" "a\x22b\x5Cc\x0Ad\xC3\xA4" host="#), "{}", line(&entry));
    }
}
