//! What a balancer says of its client before the client's own bytes: the PROXY protocol, versions 1
//! and 2 (haproxy's `proxy-protocol.txt`, of 2020).
//!
//! The header is read to its last byte and no further, so that what follows is read by whoever
//! serves the connection. The functions that understand it are pure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::headers::canonical;
use crate::config::ProxyProtocol;
use crate::proxy_header::SIGNATURE;

/// What a header of version 1 begins with.
const WORD: &[u8] = b"PROXY ";

/// The longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;

/// The most bytes of addresses and further facts in a header of version 2.
const MOST_FACTS: usize = 4096;

/// Who a connection comes from; `None`: from the peer itself, as a balancer's own checks do.
pub(super) type Client = Option<SocketAddr>;

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(&'static str);

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
    }
}

/// Reads the header that `stream` begins with. The caller has the deadline.
///
/// # Errors
/// There is none, it is not of a version that is `spoken`, it cannot be understood, or the
/// connection broke.
pub(super) async fn read(stream: &mut TcpStream, spoken: ProxyProtocol) -> io::Result<Client> {
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == SIGNATURE && spoken.is_binary() {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let (kind, length) = kind_of(rest)?;
        let mut facts = vec![0; length];
        stream.read_exact(&mut facts).await?;
        return Ok(client_of(kind, &facts)?);
    }
    if first.starts_with(WORD) && spoken.is_text() {
        let mut line = first.to_vec();
        // Only what is there is looked at: nothing behind the line may be taken.
        while !line.ends_with(b"\n") {
            let begun = line.len();
            line.resize(LONGEST_LINE, 0);
            let there = stream.peek(&mut line[begun..]).await?;
            let end = line[begun..begun + there].iter().position(|&byte| byte == b'\n');
            line.truncate(begun + end.map_or(there, |end| end + 1));
            stream.read_exact(&mut line[begun..]).await?;
            if line.len() == begun || end.is_none() && line.len() == LONGEST_LINE {
                return Err(Refused("the line of the PROXY header does not end").into());
            }
        }
        return Ok(client_named(&line)?);
    }
    Err(Refused("no PROXY header that proxy.proxy_protocol allows").into())
}

/// The client that a whole line of version 1 names.
fn client_named(line: &[u8]) -> Result<Client, Refused> {
    const REFUSED: Refused = Refused("the line of the PROXY header cannot be understood");
    let line = line.strip_suffix(b"\r\n").and_then(|line| line.strip_prefix(WORD)).ok_or(REFUSED)?;
    let line = str::from_utf8(line).map_err(|_| REFUSED)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, port, to] = words[..] else {
        // Whatever follows this word means nothing.
        return if words[0] == "UNKNOWN" { Ok(None) } else { Err(REFUSED) };
    };
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    match (family, ip(source), ip(destination), number(port), number(to)) {
        ("UNKNOWN", ..) => Ok(None),
        (_, Some(ip), Some(_), Some(port), Some::<u16>(_)) => Ok(Some(canonical(SocketAddr::new(ip, port)))),
        _ => Err(REFUSED),
    }
}

/// What the facts of a header of version 2 are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A connection of the balancer's own, or one about which it knows nothing.
    Own,
    Tcp4,
    Tcp6,
}

/// The kind of a header of version 2 and the length of its facts, by what follows the signature.
fn kind_of([command, family, high, low]: [u8; 4]) -> Result<(Kind, usize), Refused> {
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST_FACTS {
        return Err(Refused("the PROXY header is too long"));
    }
    let (kind, least) = match (command, family) {
        (0x20, _) | (0x21, 0x00) => (Kind::Own, 0),
        (0x21, 0x11) => (Kind::Tcp4, 12),
        (0x21, 0x21) => (Kind::Tcp6, 36),
        _ => {
            return Err(Refused(
                "the PROXY header is of another version, or about another protocol than TCP",
            ));
        }
    };
    if length < least {
        return Err(Refused("the PROXY header is too short for its addresses"));
    }
    Ok((kind, length))
}

/// The client that the facts of a header of version 2 name. What follows the addresses is passed
/// over.
fn client_of(kind: Kind, facts: &[u8]) -> Result<Client, Refused> {
    const REFUSED: Refused = Refused("the PROXY header is too short for its addresses");
    let port = |at: usize| match facts.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(REFUSED),
    };
    let address = match kind {
        Kind::Own => return Ok(None),
        Kind::Tcp4 => {
            let ip: [u8; 4] = *facts.first_chunk().ok_or(REFUSED)?;
            SocketAddr::new(Ipv4Addr::from(ip).into(), port(8)?)
        }
        Kind::Tcp6 => {
            let ip: [u8; 16] = *facts.first_chunk().ok_or(REFUSED)?;
            SocketAddr::new(Ipv6Addr::from(ip).into(), port(32)?)
        }
    };
    Ok(Some(canonical(address)))
}

/// For the fuzz target: what a header of either version says, in whatever bytes.
#[cfg(any(test, fuzzing))]
pub(super) fn any_header(bytes: &[u8]) {
    if let Ok(Some(client)) = client_named(bytes) {
        assert!(bytes.len() <= LONGEST_LINE + MOST_FACTS && client.ip() == client.ip().to_canonical());
    }
    if let Some((&head, facts)) = bytes.split_first_chunk::<4>()
        && let Ok((kind, length)) = kind_of(head)
        && let Some(facts) = facts.get(..length)
    {
        // A header whose length fits its kind is always understood.
        assert_eq!(client_of(kind, facts).map(|client| client.is_some()), Ok(kind != Kind::Own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1_are_understood() {
        for (line, client) in [
            ("PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\r\n", Some("1.2.3.4:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", Some("[2001:db8::1]:1")),
            ("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n", Some("1.2.3.4:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
            ("PROXY UNKNOWN whatever\r\n", None),
        ] {
            assert_eq!(client_named(line.as_bytes()), Ok(client.map(|text| text.parse().unwrap())), "{line}");
        }
        for line in [
            "PROXY TCP4 1.2.3.4 10.0.0.1 56324 443\n",
            "PROXY TCP4 1.2.3.4 10.0.0.1 56324\r\n",
            "PROXY TCP4 1.2.3.4 10.0.0.1 56324 443 5\r\n",
            "PROXY TCP4  1.2.3.4 10.0.0.1 56324 443\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 10.0.0.1 1 2\r\n",
            "PROXY TCP4 1.2.3.4 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 1.2.3.4 10.0.0.1 +1 443\r\n",
            "PROXY TCP4 1.2.3.4 x 1 443\r\n",
            "PROXY UDP4 1.2.3.4 10.0.0.1 1 443\r\n",
            "PROXY \r\n",
            "GET / HTTP/1.1\r\n",
            "",
        ] {
            assert!(client_named(line.as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn headers_of_version_2_are_understood() {
        let four = [&[1, 2, 3, 4, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb][..], b"\x03\0\x01x"].concat();
        let six = [&[0; 15][..], &[1], &[9; 16], &[0, 80, 1, 0xbb]].concat();
        let understood = |command, family, facts: &[u8]| {
            let length = u16::try_from(facts.len()).unwrap().to_be_bytes();
            let (kind, length) = kind_of([command, family, length[0], length[1]])?;
            client_of(kind, &facts[..length])
        };
        assert_eq!(understood(0x21, 0x11, &four), Ok(Some("1.2.3.4:56324".parse().unwrap())));
        assert_eq!(understood(0x21, 0x21, &six), Ok(Some("[::1]:80".parse().unwrap())));
        assert_eq!(understood(0x20, 0x11, &four), Ok(None), "LOCAL");
        assert_eq!(understood(0x21, 0, &four), Ok(None), "UNSPEC");
        for (command, family, facts) in [
            (0x11, 0x11, &four[..]),
            (0x22, 0x11, &four),
            (0x21, 0x12, &four),
            (0x21, 0x31, &four),
            (0x21, 0x11, &four[..11]),
            (0x21, 0x21, &six[..35]),
            (0x21, 0x11, &vec![0; MOST_FACTS + 1]),
        ] {
            assert!(understood(command, family, facts).is_err(), "{command:x} {family:x} {}", facts.len());
        }
    }
}
