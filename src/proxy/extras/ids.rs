//! The ids of a request: its own (`proxy.request_id`), and that of the trace it belongs to.

use std::cell::RefCell;

use crate::config::RequestId;

/// The field with the id.
pub(super) const REQUEST_ID: &[u8] = b"x-request-id";

/// The longest id of a peer's.
const LONGEST: usize = 128;

/// How many random bytes are fetched at a time.
const FETCHED: usize = 1024;

/// An id has so many.
const BYTES: usize = 16;

/// The id of a request that came with the ids `came`, of a peer that is `trusted` or not. `None`:
/// requests have none.
pub(super) fn request_id<'a>(
    how: RequestId,
    trusted: bool,
    mut came: impl Iterator<Item = &'a [u8]>,
) -> Option<Box<[u8]>> {
    match how {
        RequestId::Off => None,
        RequestId::Make => Some(make()),
        RequestId::Keep => {
            let kept = came.next().filter(|id| trusted && is_id(id));
            Some(match (kept, came.next()) {
                (Some(id), None) => id.into(),
                _ => make(),
            })
        }
    }
}

/// Whether an id of somebody else's can be kept: not too long, and nothing in it that ends a line.
fn is_id(id: &[u8]) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A new id: 32 hexadecimal digits that nobody can guess.
fn make() -> Box<[u8]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    random().into_iter().flat_map(digits).collect()
}

/// Random bytes of the kernel's, of which a thread fetches many at a time.
fn random() -> [u8; BYTES] {
    thread_local! {
        static LEFT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    LEFT.with_borrow_mut(|left| {
        if left.len() < BYTES {
            left.resize(FETCHED, 0);
            let mut filled = 0;
            while filled < FETCHED {
                match rustix::rand::getrandom(&mut left[filled..], rustix::rand::GetRandomFlags::empty()) {
                    Ok(count) => filled += count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        // It is there since Linux 3.17, and does not fail.
                        tracing::error!("no random bytes for a request's id: {error}");
                        break;
                    }
                }
            }
        }
        let mut bytes = [0; BYTES];
        let at = left.len() - BYTES;
        bytes.copy_from_slice(&left[at..]);
        left.truncate(at);
        bytes
    })
}

/// The trace that a `traceparent` names (W3C Trace Context, 3.2).
pub(super) fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let mut parts = traceparent.split(|&byte| byte == b'-');
    let mut part = |length: usize| {
        let is_lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == length && part.iter().all(is_lower_hex))
    };
    let (version, trace, parent) = (part(2)?, part(32)?, part(16)?);
    part(2)?;
    let is_zero = |part: &[u8]| part.iter().all(|&byte| byte == b'0');
    let is_over = parts.next().is_none() || version != b"00";
    (version != b"ff" && is_over && !is_zero(trace) && !is_zero(parent)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(how: RequestId, trusted: bool, came: &[&str]) -> Option<String> {
        let id = request_id(how, trusted, came.iter().map(|id| id.as_bytes()));
        id.map(|id| String::from_utf8(id.into()).unwrap())
    }

    fn is_made(id: &str) -> bool {
        id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn ids_are_kept_of_trusted_peers_alone() {
        assert_eq!(of(RequestId::Off, true, &["x"]), None);
        assert_eq!(of(RequestId::Keep, true, &["a-b/C:7"]).unwrap(), "a-b/C:7");
        let long = "x".repeat(129);
        for (trusted, came) in [
            (false, &["a"][..]),
            (true, &[]),
            (true, &["a", "b"]),
            (true, &[""]),
            (true, &["a b"]),
            (true, &["a\u{e4}"]),
            (true, &[&long]),
        ] {
            assert!(is_made(&of(RequestId::Keep, trusted, came).unwrap()), "{trusted} {came:?}");
        }
        assert!(is_made(&of(RequestId::Make, true, &["a"]).unwrap()));
    }

    #[test]
    fn no_two_ids_are_the_same() {
        let ids: HashSet<_> = (0..1000).map(|_| make()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn a_trace_is_read_as_the_standard_says() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (value, is) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), false),
            (format!("00-{TRACE}-00f067aa0ba902b7"), false),
            (TRACE.to_owned(), false),
        ] {
            let read = trace_id(value.as_bytes()).map(|trace| str::from_utf8(trace).unwrap());
            assert_eq!(read, is.then_some(TRACE), "{value}");
        }
    }
}
