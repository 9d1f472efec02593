//! The line that hipache writes: client, time, request, status, bytes, referer, user agent, app,
//! and the seconds of the whole and of the app. As there, an IPv4 client is written as IPv6, and
//! what is not known is empty. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::entry::{Entry, Text};
use super::format::{clf_time, escaped, quoted, seconds};

pub(super) fn write(out: &mut String, entry: &Entry) {
    let _ = match entry.client {
        IpAddr::V4(client) => write!(out, "::ffff:{client} - - ["),
        IpAddr::V6(client) => write!(out, "{client} - - ["),
    };
    clf_time(out, entry.time);
    out.push_str("] \"");
    escaped(out, entry.text(Text::Method).unwrap_or_default());
    out.push(' ');
    escaped(out, entry.text(Text::Path).unwrap_or_default());
    let _ = write!(out, " {}\" {} {} ", entry.proto, entry.status, entry.bytes_out);
    quoted(out, entry.text(Text::Referer), "");
    out.push(' ');
    quoted(out, entry.text(Text::UserAgent), "");
    out.push(' ');
    quoted(out, entry.app.as_ref().map(|app| app.as_bytes()), "");
    out.push(' ');
    seconds(out, entry.duration);
    out.push(' ');
    seconds(out, entry.upstream.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{empty, full};
    use super::*;

    #[test]
    fn it_is_hipaches_line() {
        let mut lines = String::new();
        write(&mut lines, &full());
        lines.push('\n');
        write(&mut lines, &empty());
        let expected = concat!(
            r#"::ffff:192.0.2.7 - - [16/Feb/2014:00:43:10 +0000] "POST /cart?id=7 HTTP/1.1" 502 3236 "#,
            r#""https://shop.example.com/" "curl/8.0" "shop" 0.011 0.009"#,
            "\n",
            r#"2001:db8::1 - - [01/Jan/1970:00:00:00 +0000] "  HTTP/1.0" 0 0 "" "" "" 0.000 0.000"#,
        );
        assert_eq!(lines, expected);
    }
}
