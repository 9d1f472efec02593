//! One JSON object a line, always with the same fields. What is not known is `null`. Pure.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use super::entry::{Entry, Text};
use super::format::millis;
use crate::plain::is_hidden;

pub(super) fn write(out: &mut String, entry: &Entry) {
    let mut object = Object { out, begun: false };
    object.name("time");
    let _ = write!(object.out, "\"{}\"", humantime::format_rfc3339_millis(entry.time));
    object.quote("client", entry.client);
    object.text("method", entry.text(Text::Method));
    object.text("host", entry.text(Text::Host));
    object.text("path", entry.text(Text::Path));
    object.quote("proto", entry.proto);
    object.number("status", Some(entry.status));
    object.number("bytes_in", Some(entry.bytes_in));
    object.number("bytes_out", Some(entry.bytes_out));
    object.name("duration_ms");
    millis(object.out, entry.duration);
    object.name("upstream_ms");
    match entry.upstream {
        Some(time) => millis(object.out, time),
        None => object.out.push_str("null"),
    }
    object.text("app", entry.app.as_ref().map(|app| app.as_bytes()));
    object.text("release", entry.text(Text::Release));
    object.number("replica", entry.replica);
    object.number("port", entry.port);
    object.number("retried", Some(entry.retried));
    object.text("error", entry.error.map(str::as_bytes));
    object.number("tunnel", Some(entry.tunnel));
    object.text("user_agent", entry.text(Text::UserAgent));
    object.text("referer", entry.text(Text::Referer));
    object.text("request_id", entry.text(Text::RequestId));
    object.text("trace_id", entry.text(Text::TraceId));
    object.text("tier", entry.tier.as_ref().map(|tier| tier.as_bytes()));
    object.out.push('}');
}

struct Object<'a> {
    out: &'a mut String,
    begun: bool,
}

impl Object<'_> {
    fn name(&mut self, name: &str) {
        self.out.push(if self.begun { ',' } else { '{' });
        self.begun = true;
        let _ = write!(self.out, "\"{name}\":");
    }

    /// A number or a truth value.
    fn number(&mut self, name: &str, value: Option<impl Display>) {
        self.name(name);
        let _ = match value {
            Some(value) => write!(self.out, "{value}"),
            None => self.out.write_str("null"),
        };
    }

    /// What needs no escapes.
    fn quote(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    fn text(&mut self, name: &str, bytes: Option<&[u8]>) {
        self.name(name);
        let Some(bytes) = bytes else {
            self.out.push_str("null");
            return;
        };
        self.out.push('"');
        match String::from_utf8_lossy(bytes) {
            // Nearly every text needs no escapes.
            Cow::Borrowed(text) if text.bytes().all(is_plain) => self.out.push_str(text),
            text => text.chars().for_each(|c| escape(self.out, c)),
        }
        self.out.push('"');
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

fn escape(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        // All of them are of one unit in UTF-16.
        c if is_hidden(c) || c == '\t' => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::{empty, full, odd};
    use super::*;

    fn line(entry: &Entry) -> String {
        let mut line = String::new();
        write(&mut line, entry);
        line
    }

    #[test]
    fn every_field_is_there_in_its_order() {
        let expected = concat!(
            r#"{"time":"2014-02-16T00:43:10.963Z","client":"192.0.2.7","method":"POST","#,
            r#""host":"shop.example.com","path":"/cart?id=7","proto":"HTTP/1.1","status":502,"bytes_in":12,"#,
            r#""bytes_out":3236,"duration_ms":11.042,"upstream_ms":9.007,"app":"shop","release":"v7","#,
            r#""replica":1,"port":41234,"retried":true,"error":"upstream_reset","tunnel":true,"#,
            r#""user_agent":"curl/8.0","referer":"https://shop.example.com/","#,
            r#""request_id":"0af7651916cd43dd8448eb211c80319c","#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","tier":"premium"}"#,
        );
        assert_eq!(line(&full()), expected);
    }

    #[test]
    fn what_is_not_known_is_null() {
        let expected = concat!(
            r#"{"time":"1970-01-01T00:00:00.000Z","client":"2001:db8::1","method":null,"host":null,"#,
            r#""path":null,"proto":"HTTP/1.0","status":0,"bytes_in":0,"bytes_out":0,"duration_ms":0.000,"#,
            r#""upstream_ms":null,"app":null,"release":null,"replica":null,"port":null,"retried":false,"#,
            r#""error":null,"tunnel":false,"user_agent":null,"referer":null,"request_id":null,"#,
            r#""trace_id":null,"tier":null}"#,
        );
        assert_eq!(line(&empty()), expected);
    }

    #[test]
    fn what_clients_send_can_be_read_again() {
        for odd in odd() {
            let mut entry = empty();
            entry.set(Text::UserAgent, &odd);
            let line = line(&entry);
            let read: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
            let kept = entry.text(Text::UserAgent).unwrap();
            assert_eq!(read["user_agent"], *String::from_utf8_lossy(kept), "{line}");
        }
    }
}
