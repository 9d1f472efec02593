//! The parts of lines: numbers, times, and what is quoted. Pure.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// Milliseconds with three places behind the point.
pub(super) fn millis(out: &mut String, time: Duration) {
    let micros = time.as_micros();
    let _ = write!(out, "{}.{:03}", micros / 1000, micros % 1000);
}

/// Seconds with three places behind the point.
pub(super) fn seconds(out: &mut String, time: Duration) {
    let millis = time.as_millis();
    let _ = write!(out, "{}.{:03}", millis / 1000, millis % 1000);
}

/// The time as Apache writes it, in UTC: `10/Oct/2000:13:55:36 +0000`.
pub(super) fn clf_time(out: &mut String, time: SystemTime) {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `2000-10-10T13:55:36Z`.
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    let (year, month, day) = (part(0, 4), month.copied().unwrap_or_default(), part(8, 10));
    let _ = write!(out, "{day}/{month}/{year}:{} +0000", part(11, 19));
}

/// `bytes` between quotes, as nginx escapes them: quotes, backslashes, controls and all that is not
/// ASCII as `\xXX`. Nothing is `absent`.
pub(super) fn quoted(out: &mut String, bytes: Option<&[u8]>, absent: &str) {
    out.push('"');
    match bytes {
        Some(bytes) => escaped(out, bytes),
        None => out.push_str(absent),
    }
    out.push('"');
}

/// The inside of [`quoted`].
pub(super) fn escaped(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::access::{Entry, Text};

    /// An entry with every field.
    pub(in crate::access) fn full() -> Entry {
        let mut entry = Entry::new(IpAddr::from([192, 0, 2, 7]), "HTTP/1.1");
        entry.time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_392_511_390_963);
        entry.set(Text::Method, b"POST");
        entry.set(Text::Host, b"shop.example.com");
        entry.set(Text::Path, b"/cart?id=7");
        entry.set(Text::UserAgent, b"curl/8.0");
        entry.set(Text::Referer, b"https://shop.example.com/");
        entry.set(Text::RequestId, b"0af7651916cd43dd8448eb211c80319c");
        entry.set(Text::TraceId, b"4bf92f3577b34da6a3ce929d0e0e4736");
        entry.set(Text::Release, b"v7");
        entry.status = 502;
        (entry.bytes_in, entry.bytes_out) = (12, 3236);
        entry.duration = Duration::from_micros(11_042);
        entry.upstream = Some(Duration::from_micros(9_007));
        entry.app = Some("shop".into());
        (entry.replica, entry.port) = (Some(1), Some(41_234));
        (entry.retried, entry.tunnel) = (true, true);
        entry.error = Some("upstream_reset");
        entry.tier = Some("premium".into());
        entry
    }

    /// An entry of which next to nothing is known.
    pub(in crate::access) fn empty() -> Entry {
        let mut entry = Entry::new("2001:db8::1".parse().unwrap(), "HTTP/1.0");
        entry.time = SystemTime::UNIX_EPOCH;
        entry
    }

    /// What clients send to break a log.
    pub(in crate::access) fn odd() -> Vec<Vec<u8>> {
        vec![
            b"a\"b\\c".to_vec(),
            b"a\r\nforged line\n".to_vec(),
            b"\x1b[2J\x00\x07\x7f\t".to_vec(),
            "\u{202e}right\u{2028}to\u{9b}left \u{e4}".as_bytes().to_vec(),
            b"\xff\xfe\xc3(".to_vec(),
            vec![b'"'; 10 * 1024],
            vec![0xff; 10 * 1024],
            "\u{e4}".repeat(5 * 1024).into_bytes(),
        ]
    }

    #[test]
    fn times_are_written_as_others_write_them() {
        let mut out = String::new();
        clf_time(&mut out, SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136));
        out.push(' ');
        millis(&mut out, Duration::from_nanos(1_002_999));
        out.push(' ');
        seconds(&mut out, Duration::from_millis(61_007));
        assert_eq!(out, "10/Oct/2000:13:55:36 +0000 1.002 61.007");
    }
}
