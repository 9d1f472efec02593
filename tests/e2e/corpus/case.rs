//! How an entry of the corpus is written.
//!
//! A character of a text is a byte: those above `\xff` are refused. `<long>` stands for the text of
//! `long`, repeated as often as it says, and `<long X>` for X, as often. In what the app sees,
//! `<fwd HOST>` stands for the four lines that portok writes about a stranger from this host who
//! asked for HOST (`<fwd>`: for none), and `<app>` for the app's own address.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What a client sends. Unless it says otherwise it gets 400 without a body and a closed
/// connection, and the app sees nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromClient {
    pub(crate) name: String,
    /// The paragraph or the known attack that it comes from.
    pub(crate) from: String,
    pub(crate) sends: String,
    pub(crate) long: Option<(String, usize)>,
    /// The client ends its sending side behind it.
    #[serde(default)]
    pub(crate) ends: bool,
    /// It is a `HEAD`.
    #[serde(default)]
    pub(crate) head: bool,
    /// The statuses of the answers, interim ones left out.
    pub(crate) gets: Option<Vec<u16>>,
    /// The `portok-error` of the last one.
    pub(crate) code: Option<String>,
    /// The connection goes on.
    #[serde(default)]
    pub(crate) kept: bool,
    /// The requests that the app sees: head, then body without chunks, then the lines of a trailer.
    #[serde(default)]
    pub(crate) app: Vec<String>,
    /// What the app may see of a request that broke off: this, or less.
    pub(crate) broken: Option<String>,
}

/// What an app answers. Unless it says otherwise the client gets 502 `upstream_invalid`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromApp {
    pub(crate) name: String,
    /// The paragraph or the known attack that it comes from.
    pub(crate) from: String,
    pub(crate) answers: String,
    pub(crate) long: Option<(String, usize)>,
    /// The request for `/case`. By default a plain one, and one that takes the other way.
    pub(crate) sends: Option<String>,
    /// It is a `HEAD`.
    #[serde(default)]
    pub(crate) head: bool,
    /// The app answers before the body.
    #[serde(default)]
    pub(crate) early: bool,
    /// The app closes the connection behind it.
    #[serde(default)]
    pub(crate) closes: bool,
    /// The app resets the connection behind it.
    #[serde(default)]
    pub(crate) resets: bool,
    /// What the app sends once the client has the answer.
    pub(crate) late: Option<String>,
    /// The status of the answer.
    pub(crate) gets: Option<u16>,
    /// Its `portok-error`.
    code: Option<String>,
    /// Lines of its head.
    #[serde(default)]
    pub(crate) has: Vec<String>,
    /// Names that its head has exactly once.
    #[serde(default)]
    pub(crate) once: Vec<String>,
    /// Names that its head has not.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    pub(crate) body: Option<String>,
    /// The lines of its trailer, for a client that takes trailers.
    pub(crate) trailers: Option<String>,
    /// The same over HTTP/2, where they need not be announced.
    pub(crate) http2_trailers: Option<String>,
    /// It breaks off, so that the client sees that it is not whole.
    #[serde(default)]
    pub(crate) cut: bool,
    /// The client's connection goes on. By default it does unless the answer is cut.
    pub(crate) kept: Option<bool>,
    /// The app's connection is used again. By default it is after a whole answer of the app's.
    pub(crate) app_kept: Option<bool>,
    /// How often the app is asked.
    pub(crate) times: Option<usize>,
}

impl FromApp {
    /// The `portok-error` of the answer.
    pub(crate) fn code(&self) -> Option<&str> {
        self.code.as_deref().or_else(|| self.gets.is_none().then_some("upstream_invalid"))
    }
}

#[derive(Debug, Deserialize)]
struct File<C> {
    case: Vec<C>,
}

/// Where the corpus lies.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/corpus")
}

/// The entries of a file.
pub(crate) fn read<C: DeserializeOwned>(folder: &str, name: &str) -> Vec<C> {
    let file = self::folder().join(folder).join(name).with_extension("toml");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let read: File<C> = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    read.case
}

/// The names of the entries of a file.
pub(crate) fn names(folder: &str, name: &str) -> Vec<String> {
    #[derive(Debug, Deserialize)]
    struct Named {
        name: String,
    }
    read::<Named>(folder, name).into_iter().map(|case| case.name).collect()
}

/// The bytes of a text: a character is a byte.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|byte| u8::try_from(byte).unwrap_or_else(|_| panic!("{byte} is no byte"))).collect()
}

/// The text of bytes: a byte is a character.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Bytes as a failure shows them.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(600)].escape_ascii();
    if bytes.len() > 600 { format!("{shown}… ({} bytes)", bytes.len()) } else { shown.to_string() }
}

/// A text with what stands for `long` and for the lines about the client filled in.
pub(crate) fn filled(text: &str, long: Option<&(String, usize)>, app: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let place = rest.find('>').map(|end| &rest[..=end]).and_then(|whole| {
            let inner = &whole[1..whole.len() - 1];
            let (word, argument) = inner.split_once(' ').unwrap_or((inner, ""));
            let stands_for = match (word, long) {
                ("fwd", _) => forwarded(argument),
                ("app", _) => app.to_owned(),
                ("long", Some((text, times))) if argument.is_empty() => text.repeat(*times),
                ("long", Some((_, times))) => argument.repeat(*times),
                _ => return None,
            };
            Some((whole, stands_for))
        });
        match place {
            Some((whole, stands_for)) => {
                out.push_str(&stands_for);
                rest = &rest[whole.len()..];
            }
            None => {
                out.push('<');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    bytes(&out)
}

/// What portok says of a stranger on this host who asked for `host`.
fn forwarded(host: &str) -> String {
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or("80");
    let mut lines =
        format!("x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-port: {port}\r\n");
    if !host.is_empty() {
        lines.push_str(&format!("x-forwarded-host: {host}\r\n"));
    }
    lines
}
