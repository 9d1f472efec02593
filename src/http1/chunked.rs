//! Decodes the chunked transfer coding (RFC 9112, 7.1). Strict; the body may arrive in any pieces.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields;
use super::head::{Invalid, MAX_HEAD};

/// The longest line of a chunk's size and extensions.
const MAX_SIZE_LINE: usize = 4096;

/// The most fields of a trailer.
const MAX_FIELDS: usize = 128;

/// Where in a chunked body the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In a line with a size.
    Size,
    /// In a chunk, with this much left.
    Data(u64),
    /// Before the line end behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailer,
    /// Behind the body.
    Done,
}

/// The result of one step.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece {
    /// More bytes are needed.
    Partial,
    /// A part of the body; never empty.
    Data(Bytes),
    /// The trailer; the body is over.
    Trailers(HeaderMap),
    /// The body is over.
    End,
}

impl Chunked {
    /// Takes the next piece from the front of `buf`. What is invalid stays there, so that whoever
    /// asks again gets the error again.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Piece, Invalid> {
        loop {
            match *self {
                Self::Size => match size_line(buf)? {
                    None => return Ok(Piece::Partial),
                    Some(0) => *self = Self::Trailer,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    if buf.is_empty() {
                        return Ok(Piece::Partial);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let left = left - take as u64;
                    *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                    return Ok(Piece::Data(buf.split_to(take).freeze()));
                }
                Self::DataEnd => match buf.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buf.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::Partial),
                    _ => return Err(Invalid("a chunk does not end where its size says")),
                },
                Self::Trailer => {
                    let Some(trailers) = trailer(buf)? else { return Ok(Piece::Partial) };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                }
                Self::Done => return Ok(Piece::End),
            }
        }
    }
}

/// Takes a size line: hexadecimal digits, then maybe extensions, which are ignored.
fn size_line(buf: &mut BytesMut) -> Result<Option<u64>, Invalid> {
    let end = buf.iter().take(MAX_SIZE_LINE).position(|&byte| byte == b'\n');
    let Some(end) = end else {
        return if buf.len() >= MAX_SIZE_LINE {
            Err(Invalid("a chunk size line is too long"))
        } else {
            Ok(None)
        };
    };
    let line = buf[..end].strip_suffix(b"\r").ok_or(Invalid("a bare line feed in a chunk header"))?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match &rest[blank..] {
        [] => {}
        [b';', extension @ ..] if !extension.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') => {
        }
        _ => return Err(Invalid("a chunk size is not a number")),
    }
    let digits = str::from_utf8(digits).unwrap_or_default();
    let size = u64::from_str_radix(digits, 16).map_err(|_| Invalid("a chunk size is not a number"))?;
    buf.advance(end + 1);
    Ok(Some(size))
}

/// Takes the trailer with the empty line behind it.
fn trailer(buf: &mut BytesMut) -> Result<Option<HeaderMap>, Invalid> {
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let end = buf.windows(4).take(MAX_HEAD).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return if buf.len() >= MAX_HEAD { Err(Invalid("a trailer is too long")) } else { Ok(None) };
    };
    let block = &buf[..end + 4];
    let bare =
        block.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || block[at - 1] != b'\r'));
    if bare {
        return Err(Invalid("a bare line feed in a trailer"));
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let parsed = httparse::parse_headers(block, &mut fields);
    let Ok(httparse::Status::Complete((_, fields))) = parsed else {
        return Err(Invalid("a trailer cannot be read"));
    };
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Invalid("a trailer cannot be read")) };
        if !fields::is_forbidden_trailer(&name) {
            trailers.append(name, value);
        }
    }
    buf.advance(end + 4);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Decoded = Result<Option<(Vec<u8>, HeaderMap, Vec<u8>)>, Invalid>;

    /// Decodes what arrives in `parts`: the body, its trailers, and what is left over.
    fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        let (mut state, mut buf) = (Chunked::Size, BytesMut::new());
        let (mut body, mut trailers, mut over) = (Vec::new(), HeaderMap::new(), false);
        for part in parts {
            buf.extend_from_slice(part);
            while !over {
                match state.decode(&mut buf)? {
                    Piece::Partial => break,
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Trailers(map) => (trailers, over) = (map, true),
                    Piece::End => over = true,
                }
            }
        }
        Ok(over.then(|| (body, trailers, buf.to_vec())))
    }

    fn whole(bytes: &[u8]) -> Decoded {
        decode([bytes])
    }

    /// Whether the error of what is invalid comes again.
    fn stays_invalid(bytes: &[u8]) -> bool {
        let (mut state, mut buf) = (Chunked::Size, BytesMut::from(bytes));
        loop {
            match state.decode(&mut buf) {
                Ok(Piece::Data(_)) => (),
                Ok(_) => return false,
                Err(first) => return state.decode(&mut buf) == Err(first),
            }
        }
    }

    #[test]
    fn bodies_are_decoded() {
        let (body, trailers, rest) =
            whole(b"4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\nHTTP/").unwrap().unwrap();
        assert_eq!(body, b"Wikipedia");
        assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(rest, b"HTTP/");
        assert_eq!(whole(b"0\r\n\r\n").unwrap().unwrap().0, b"");
        assert_eq!(whole(b"A \r\n0123456789\r\n0\r\n\r\n").unwrap().unwrap().0, b"0123456789");
        assert!(whole(b"5\r\nabc").unwrap().is_none());
    }

    #[test]
    fn a_trailer_never_carries_what_belongs_into_a_head() {
        let (_, trailers, _) = whole(
            b"0\r\nContent-Length: 5\r\ntransfer_encoding: chunked\r\nok: 1\r\nHost: a\r\nX-Forwarded-For: 1\r\n\
            x_forwarded_any: 1\r\nX-Real-IP: 1\r\nForwarded: for=1\r\nAuthorization: b\r\nCookie: c\r\nSet-Cookie: d\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["ok"]);
    }

    #[test]
    fn what_is_not_chunked_is_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5;x\nhello\r\n",
            b"5;\x00\r\nhello\r\n",
            b"5\r\r\nhello\r\n",
            b"5 5\r\nhello\r\n",
            b"5\r\nhello!\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"0\r\nbroken\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\na: b\n\r\n\r\n",
            b"0\r\na: b\r\n folded\r\n\r\n",
        ] {
            assert!(whole(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
            assert!(stays_invalid(bytes), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(whole(&[b'0'; MAX_SIZE_LINE]).is_err());
        assert!(whole(&[&b"0\r\n"[..], &vec![b'a'; MAX_HEAD + 4]].concat()).is_err());
    }

    fn chunky() -> impl Strategy<Value = Vec<u8>> {
        let chunk = proptest::collection::vec(any::<u8>(), 1..40)
            .prop_map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), &data, b"\r\n"].concat());
        let end = prop_oneof![
            Just(&b"0\r\n\r\n"[..]),
            Just(&b"0\r\nA: b\r\nC: d\r\n\r\nrest"[..]),
            Just(&b"5\nx"[..])
        ];
        (proptest::collection::vec(chunk, 0..6), end)
            .prop_map(|(chunks, end)| [&chunks.concat(), end].concat())
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in chunky(), size in 1_usize..9) {
            prop_assert_eq!(decode(bytes.chunks(size)), whole(&bytes));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..9) {
            prop_assert_eq!(decode(bytes.chunks(size)).is_err(), whole(&bytes).is_err());
        }
    }
}
