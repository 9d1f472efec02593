//! The health service of gRPC (`grpc.health.v1.Health/Check`), asked once.
//!
//! Question and answer are two messages of protobuf with one field each, written and read here by
//! hand: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Version, header};
use tokio::net::TcpStream;

use super::Probe;
use super::failure::Failure;
use super::http2::converse;
use crate::wire::ProbeReport;

/// The path of the one method.
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// The longest answer, in bytes. One has two.
const ANSWER_MAX: usize = 4096;

/// How much of a message is shown, in characters.
const SHOWN: usize = 256;

/// What a server that is well answers.
const SERVING: u64 = 1;

/// The most milliseconds that a timeout of gRPC has digits for.
const TIMEOUT_MAX: u128 = 99_999_999;

/// How the service is called that is asked about.
pub(super) fn called(service: &str) -> String {
    match service {
        "" => "grpc.health.v1".to_owned(),
        service => format!("grpc.health.v1 about {service}"),
    }
}

/// Asks about `service`, and notes the answer. Where it is not SERVING, it is the failure.
pub(super) async fn check(
    stream: TcpStream,
    probe: &Probe,
    service: &str,
    report: &mut ProbeReport,
) -> Result<(), Failure> {
    let (request, question) = (request(probe)?, framed(&question(service)));
    let most_fields = probe.most_fields;
    let answer = converse(stream, |mut sender| async move {
        let (head, mut body) = sender.send_request(request, false)?;
        body.send_data(question, true)?;
        let (head, mut body) = head.await?.into_parts();
        if !head.status.is_success() {
            return Ok(Answer::Status(head.status.as_u16()));
        }
        if head.headers.len() > most_fields {
            return Err(Failure::Said("the answer's head has too many fields".to_owned()));
        }
        let mut message = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            // Its own frames leave nothing to give back in vain.
            let _counted = body.flow_control().release_capacity(data.len());
            if message.len() + data.len() > ANSWER_MAX {
                return Err(Failure::Said("the answer of grpc.health.v1 is too long".to_owned()));
            }
            message.put(data);
        }
        let trailers = body.trailers().await?;
        Ok(Answer::Message { ended: trailers.unwrap_or(head.headers), message: message.freeze() })
    })
    .await?;
    match answer {
        Answer::Status(status) => report.status = Some(status),
        Answer::Message { ended, message } => {
            said(service, &ended, &message).map_err(Failure::Said)?;
            report.healthy = true;
        }
    }
    Ok(())
}

/// What came back.
enum Answer {
    /// No answer of gRPC.
    Status(u16),
    /// A message, and the fields that say how the call ended.
    Message { ended: HeaderMap, message: Bytes },
}

fn request(probe: &Probe) -> Result<Request<()>, Failure> {
    let timeout = format!("{}m", probe.timeout.as_millis().clamp(1, TIMEOUT_MAX));
    Request::post(format!("http://{}{CHECK}", probe.host))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, HeaderValue::from_static("portok"))
        .header("grpc-timeout", timeout)
        .body(())
        .map_err(|_| Failure::Request)
}

/// Whether an answer says that it serves; else what it says.
fn said(service: &str, ended: &HeaderMap, message: &[u8]) -> Result<(), String> {
    let field = |name| ended.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some(code) => {
            let name = code.parse().ok().and_then(|code: usize| CODES.get(code)).unwrap_or(&"unknown");
            let message = field("grpc-message").filter(|message| !message.is_empty());
            let message = message.map(|message| format!(": {message}")).unwrap_or_default();
            let message: String = message.chars().take(SHOWN).collect();
            return Err(format!("{} is answered with {name} ({code}){message}", called(service)));
        }
        None => return Err(format!("{} is answered without a grpc-status", called(service))),
    }
    match unframed(message).and_then(status) {
        Some(SERVING) => Ok(()),
        Some(status) => {
            let name = usize::try_from(status).ok().and_then(|status| STATES.get(status));
            Err(format!("{} is {}", called(service), name.unwrap_or(&"in an unknown state")))
        }
        None => Err(format!("the answer of {} cannot be read", called(service))),
    }
}

/// The states of a service, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// The codes with which calls end, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A message with gRPC's frame around it: not compressed, its length.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The one message of a frame that is not compressed.
fn unframed(frame: &[u8]) -> Option<&[u8]> {
    let (head, message) = frame.split_first_chunk::<5>()?;
    let [flag, length @ ..] = *head;
    (flag == 0 && u32::from_be_bytes(length) as usize == message.len()).then_some(message)
}

/// `HealthCheckRequest`: its first field is the service.
fn question(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return Vec::new();
    }
    let mut message = vec![1 << 3 | 2];
    let mut length = service.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(service.as_bytes());
    message
}

/// The first field of a `HealthCheckResponse`, a number; 0 where it is left out. Other fields are
/// passed over.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(length..)?;
    }
    Some(status)
}

/// Takes a number of seven bits a byte off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(question(""), b"");
        assert_eq!(question("a.B"), b"\x0a\x03a.B");
        let long = "x".repeat(200);
        assert_eq!(question(&long)[..4], *b"\x0a\xc8\x01x");
        assert_eq!(&framed(b"ab")[..], b"\0\0\0\0\x02ab");
        assert_eq!(unframed(&framed(b"ab")), Some(&b"ab"[..]));
        for bad in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab", b"\x01\0\0\0\x01a"] {
            assert_eq!(unframed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_answer_is_read_whatever_else_it_has() {
        for (message, read) in [
            (&b""[..], Some(0)),
            (b"\x08\x01", Some(1)),
            (b"\x08\x02", Some(2)),
            (b"\x12\x03abc\x08\x01\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x18\xff\x01", Some(1)),
            (b"\x08", None),
            (b"\x08\x80", None),
            (b"\x12\x05abc", None),
            (b"\x0b", None),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(status(message), read, "{message:?}");
        }
    }

    #[test]
    fn what_is_not_serving_is_said() {
        let ended = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            fields
                .iter()
                .map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)))
                .collect()
        };
        let ok = ended(&[("grpc-status", "0")]);
        assert_eq!(said("", &ok, &framed(b"\x08\x01")), Ok(()));
        for (service, ended, message, part) in [
            ("", ok.clone(), framed(b"\x08\x02"), "grpc.health.v1 is NOT_SERVING"),
            ("a.B", ok.clone(), framed(b""), "grpc.health.v1 about a.B is UNKNOWN"),
            ("", ok.clone(), framed(b"\x08\x09"), "in an unknown state"),
            ("", ok.clone(), Bytes::new(), "cannot be read"),
            ("", HeaderMap::new(), framed(b"\x08\x01"), "without a grpc-status"),
            ("a.B", ended(&[("grpc-status", "5")]), Bytes::new(), "with NOT_FOUND (5)"),
            (
                "",
                ended(&[("grpc-status", "12"), ("grpc-message", "nope")]),
                Bytes::new(),
                "UNIMPLEMENTED (12): nope",
            ),
            ("", ended(&[("grpc-status", "x")]), Bytes::new(), "unknown (x)"),
        ] {
            let why = said(service, &ended, &message).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
