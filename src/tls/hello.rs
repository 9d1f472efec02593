//! What a client says first (RFC 8446, 4.1.2), before it is decided who answers it.

use std::io;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http1::host::is_host;

/// What a read asks for. Whenever so much has come, rustls looks at it: it takes one record of the
/// greatest length and no more before.
const READ: usize = 2048;

/// The most bytes that a client may say first: a message of the greatest length that rustls takes,
/// in records that are not too small.
const MOST: usize = 128 * 1024;

/// A client that has said which host it means.
pub struct Heard {
    /// Why portok does not go on with it, and what it is told then; another server may.
    accepted: Result<Accepted, (rustls::Error, AcceptedAlert)>,
    name: Option<String>,
    /// As they came.
    bytes: Vec<u8>,
}

impl Heard {
    /// The host that it means, in lower case; `None`: it has named none.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The host that it means, and the bytes of all that it has said.
    pub fn into_parts(self) -> (Option<String>, Vec<u8>) {
        (self.name, self.bytes)
    }

    /// What portok goes on with over `stream`.
    ///
    /// # Errors
    /// portok does not speak with it, and has told it so.
    pub(super) async fn accepted<S>(self, stream: &mut S) -> io::Result<Accepted>
    where
        S: AsyncWrite + Unpin,
    {
        let (error, mut alert) = match self.accepted {
            Ok(accepted) => return Ok(accepted),
            Err(refused) => refused,
        };
        let mut told = Vec::new();
        alert.write_all(&mut told)?;
        stream.write_all(&told).await?;
        stream.shutdown().await?;
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Hears what a client says first. The caller has the deadline.
///
/// # Errors
/// The connection broke, or it says more than belongs there.
pub async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Heard> {
    let (mut acceptor, mut bytes) = (Acceptor::default(), Vec::new());
    loop {
        let known = bytes.len();
        if stream.take(READ as u64).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message does not end"));
        }
        let mut new = &bytes[known..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Ok(Heard { accepted: Ok(accepted), name, bytes });
            }
            Err(refused) => {
                let name = name_in(&bytes);
                return Ok(Heard { accepted: Err(refused), name, bytes });
            }
        }
    }
}

/// The host that a client means whose first message rustls does not take, such as one of an older
/// version; in lower case. `None`: it names none, or the message is not to be understood.
fn name_in(records: &[u8]) -> Option<String> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    let (mut rest, mut message) = (records, Vec::new());
    while let Some((&[kind, _, _, high, low], payload)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(payload.len());
        if kind != HANDSHAKE {
            break;
        }
        message.extend_from_slice(&payload[..length]);
        rest = &payload[length..];
    }
    let (&[CLIENT_HELLO, _, _, _], hello) = message.split_first_chunk()? else { return None };
    let after_random = hello.get(2 + 32..)?;
    let (_session, rest) = part(after_random, 1)?;
    let (_ciphers, rest) = part(rest, 2)?;
    let (_compressions, rest) = part(rest, 1)?;
    let (mut extensions, _) = part(rest, 2)?;
    // RFC 6066, 3: the extension of this kind is a list whose first item is a name of this kind.
    while let Some((kind, rest)) = extensions.split_first_chunk::<2>() {
        let (content, others) = part(rest, 2)?;
        if *kind == [0, 0] {
            let (list, _) = part(content, 2)?;
            let (name, _) = part(list.strip_prefix(&[0])?, 2)?;
            let name = str::from_utf8(name).ok().filter(|name| is_host(name.as_bytes()))?;
            return Some(name.to_ascii_lowercase());
        }
        extensions = others;
    }
    None
}

/// What follows its own length, of so many bytes, and the rest.
fn part(bytes: &[u8], of_length: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(of_length)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::crypto::ring::default_provider;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(host: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client =
            ClientConnection::new(Arc::new(config), host.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of at most so many bytes.
    fn in_records(hello: &[u8], most: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[22, 3, 1], &length[..], part].concat()
        };
        hello[5..].chunks(most).flat_map(record).collect()
    }

    #[test]
    fn the_name_is_found_as_rustls_finds_it() {
        for (host, name) in [("Db.Test", Some("db.test")), ("a.b.c.example", Some("a.b.c.example"))] {
            let bytes = hello(host);
            assert_eq!(name_in(&bytes).as_deref(), name);
            assert_eq!(name_in(&in_records(&bytes, 7)).as_deref(), name);
            assert_eq!(name_in(&bytes[..40]), None);
        }
        assert_eq!(name_in(&hello("127.0.0.1")), None);
        assert_eq!(name_in(b"GET / HTTP/1.1\r\n\r\n"), None);
    }

    #[tokio::test]
    async fn a_client_is_heard_whatever_its_records_are() {
        // Extensions that nobody knows make it long (RFC 8701).
        let mut long = hello("db.test");
        let padding = [&[0x1a, 0x1a, 0xea, 0x60][..], &[0; 60_000]].concat();
        long.extend_from_slice(&padding);
        let grow = |bytes: &mut [u8]| {
            let length =
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)) + padding.len();
            let all = length.to_be_bytes();
            bytes.copy_from_slice(&all[all.len() - bytes.len()..]);
        };
        let session = usize::from(long[5 + 4 + 34]);
        let ciphers = 5 + 4 + 34 + 1 + session;
        let compressions = ciphers + 2 + usize::from(u16::from_be_bytes([long[ciphers], long[ciphers + 1]]));
        let extensions = compressions + 1 + usize::from(long[compressions]);
        grow(&mut long[6..9]);
        grow(&mut long[extensions..extensions + 2]);
        for (bytes, most) in
            [(&hello("db.test"), 1), (&hello("db.test"), 16_384), (&long, 16_384), (&long, 500)]
        {
            let bytes = in_records(bytes, most);
            let heard = hear(&mut &bytes[..]).await.unwrap();
            assert_eq!(heard.name(), Some("db.test"));
            assert!(heard.accepted.is_ok());
            assert_eq!(heard.into_parts().1, bytes);
        }
        // Clients of TLS 1.0 have no extension that says which signatures they take; rustls wants it.
        let mut old = hello("db.test");
        let is_it = |at: &[u8]| at[..3] == [0, 13, 0] && at[4] == 0 && at[5] + 2 == at[3];
        let place = old.windows(6).position(is_it).unwrap();
        old[place + 1] = 99;
        let heard = hear(&mut &old[..]).await.unwrap();
        assert_eq!(heard.name(), Some("db.test"));
        let mut told = Vec::new();
        assert!(heard.accepted(&mut told).await.is_err());
        assert_eq!(told[0], 21, "an alert");
    }

    proptest! {
        #[test]
        fn any_bytes_name_a_host_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..400_usize) {
            let mut hello = hello("db.test");
            hello.truncate(at);
            hello.extend_from_slice(&bytes);
            for bytes in [&hello, &bytes] {
                if let Some(name) = name_in(bytes) {
                    prop_assert!(is_host(name.as_bytes()));
                }
            }
        }
    }
}
