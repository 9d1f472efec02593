//! Reads header blocks (RFC 7541), with all that an encoder may make use of. Written for the tests,
//! so that what portok sends is judged by somebody else.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

/// The names of the static table (appendix A).
const NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

/// Its values that are not empty, by index.
const VALUES: [(usize, &str); 14] = [
    (2, "GET"),
    (3, "POST"),
    (4, "/"),
    (5, "/index.html"),
    (6, "http"),
    (7, "https"),
    (8, "200"),
    (9, "204"),
    (10, "206"),
    (11, "304"),
    (12, "400"),
    (13, "404"),
    (14, "500"),
    (16, "gzip, deflate"),
];

/// How many bits stand for each byte (appendix B). The code is canonical, which is enough to know.
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The bytes that code words stand for, by their lengths and bits.
static WORDS: LazyLock<HashMap<(u8, u32), u8>> = LazyLock::new(|| {
    let mut bytes: Vec<u8> = (0..=255).collect();
    bytes.sort_by_key(|&byte| (BITS[usize::from(byte)], byte));
    let (mut word, mut last) = (0_u32, 0_u8);
    let mut words = HashMap::new();
    for byte in bytes {
        let length = BITS[usize::from(byte)];
        word <<= length - last;
        words.insert((length, word), byte);
        (word, last) = (word + 1, length);
    }
    words
});

/// A name and its value.
pub(crate) type Field = (String, String);

/// Reads the blocks of one connection.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    table: VecDeque<Field>,
}

impl Decoder {
    /// The fields of a block; a byte is a character.
    pub(crate) fn block(&mut self, bytes: &[u8]) -> Vec<Field> {
        let mut rest = bytes;
        let mut fields = Vec::new();
        while let Some(&first) = rest.first() {
            if first & 0x80 != 0 {
                fields.push(self.entry(integer(&mut rest, 7)));
                continue;
            }
            if first & 0xe0 == 0x20 {
                assert!(integer(&mut rest, 5) <= 4096, "a larger table than may be");
                continue;
            }
            let is_kept = first & 0x40 != 0;
            let name = match integer(&mut rest, if is_kept { 6 } else { 4 }) {
                0 => string(&mut rest),
                index => self.entry(index).0,
            };
            let field = (name, string(&mut rest));
            if is_kept {
                self.table.push_front(field.clone());
                while self.size() > 4096 {
                    self.table.pop_back();
                }
            }
            fields.push(field);
        }
        fields
    }

    fn size(&self) -> usize {
        self.table.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    fn entry(&self, index: usize) -> Field {
        match NAMES.get(index.wrapping_sub(1)) {
            Some(name) => {
                let value = VALUES.iter().find(|(at, _)| *at == index).map_or("", |(_, value)| value);
                ((*name).to_owned(), value.to_owned())
            }
            None => self.table.get(index - 62).expect("an entry of the table").clone(),
        }
    }
}

/// An integer whose first byte has so many bits of it (5.1).
fn integer(rest: &mut &[u8], bits: u8) -> usize {
    let full = (1 << bits) - 1;
    let mut value = usize::from(take(rest)) & full;
    if value == full {
        for shift in (0..).step_by(7) {
            let byte = take(rest);
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

/// A string (5.2).
fn string(rest: &mut &[u8]) -> String {
    let is_packed = rest.first().expect("a string") & 0x80 != 0;
    let length = integer(rest, 7);
    let (bytes, behind) = rest.split_at(length);
    *rest = behind;
    if is_packed { unpacked(bytes) } else { bytes.iter().map(|&byte| char::from(byte)).collect() }
}

fn unpacked(bytes: &[u8]) -> String {
    let (mut text, mut word, mut length) = (String::new(), 0, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        (word, length) = (word << 1 | bit, length + 1);
        if let Some(&byte) = WORDS.get(&(length, word)) {
            text.push(char::from(byte));
            (word, length) = (0, 0);
        }
    }
    assert!(length < 8 && word == (1 << length) - 1, "the padding of a packed string");
    text
}

fn take(rest: &mut &[u8]) -> u8 {
    let (&first, behind) = rest.split_first().expect("a block that is whole");
    *rest = behind;
    first
}

#[test]
fn the_examples_of_rfc_7541_are_read() {
    // C.6.1 to C.6.2.
    let mut decoder = Decoder::default();
    let first = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3";
    let fields = decoder.block(first);
    let shown: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
    let rest = [
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    assert_eq!(shown, [&[(":status", "302")], &rest[..]].concat());
    let second = decoder.block(b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf");
    assert_eq!(second[0], (":status".to_owned(), "307".to_owned()));
    assert_eq!(second[1..], fields[1..]);
}
