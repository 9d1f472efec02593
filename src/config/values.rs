//! What values look like: one parser for each kind, for the file and the environment alike.
//!
//! A parser gets an [`Input`] and returns the value, or what was expected instead. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::CommandLine;
use super::stop_signal::{self, StopSignal};

/// The longest time that can be configured.
pub(super) const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shortest time where zero makes no sense.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

/// What an instance name looks like.
pub(super) const NAME_EXPECTED: &str = "1 to 64 letters, digits, `_` or `-`";

/// A value before it is parsed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// From the file.
    Toml(&'a DeValue<'a>),
    /// From the environment or a flag: never empty, without spaces around it.
    Text(&'a str),
}

impl<'a> Input<'a> {
    /// A string, or a variable's text.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    fn integer(self) -> Option<i64> {
        match self {
            Self::Toml(DeValue::Integer(n)) => i64::from_str_radix(n.as_str(), n.radix()).ok(),
            Self::Toml(_) => None,
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// What a parser returns: the value, or what was expected.
pub(super) type Parsed<T> = Result<T, String>;

/// A whole number from `min` to `max`.
pub(super) fn integer<T>(min: T, max: T) -> impl Fn(Input<'_>) -> Parsed<T>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
{
    move |input| {
        input
            .integer()
            .and_then(|n| T::try_from(n).ok())
            .filter(|n| (min..=max).contains(n))
            .ok_or_else(|| format!("a whole number from {min} to {max}"))
    }
}

/// A share: a number from 0 to 1.
pub(super) fn share(input: Input<'_>) -> Parsed<f64> {
    let number = match input {
        Input::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
        Input::Toml(DeValue::Integer(number)) => number.as_str().parse().ok(),
        Input::Toml(_) => None,
        Input::Text(text) => text.parse().ok(),
    };
    number
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a number from 0 to 1, such as 0.1".to_owned())
}

/// Processor time in percent of one processor, such as "150%".
pub(super) fn percent(input: Input<'_>) -> Parsed<u32> {
    input
        .text()
        .and_then(|text| text.trim().strip_suffix('%')?.trim_end().parse().ok())
        .filter(|percent| (1..=100_000).contains(percent))
        .ok_or_else(|| {
            "a share of one processor's time from \"1%\" to \"100000%\", a string such as \"150%\"".to_owned()
        })
}

/// A port that something can listen on.
pub(super) fn port(input: Input<'_>) -> Parsed<u16> {
    integer(1, u16::MAX)(input).map_err(|_| "a port from 1 to 65535".to_owned())
}

/// An address to listen on. A port alone belongs to `host`. Port 0: the kernel chooses.
pub(super) fn listen(host: Ipv4Addr) -> impl Fn(Input<'_>) -> Parsed<SocketAddr> {
    move |input| listen_at(host, input)
}

fn listen_at(host: Ipv4Addr, input: Input<'_>) -> Parsed<SocketAddr> {
    let port = match input {
        Input::Toml(value) => value.as_str().map_or(input.integer(), |text| text.parse().ok()),
        Input::Text(_) => input.integer(),
    };
    let from_port = port.and_then(|port| u16::try_from(port).ok());
    from_port
        .map(|port| SocketAddr::from((host, port)))
        .or_else(|| input.text().and_then(|text| text.parse().ok()))
        .ok_or_else(|| {
            "a port from 0 to 65535, or an address such as \"0.0.0.0:3000\" or \"[::]:3000\"".to_owned()
        })
}

/// A truth value.
pub(super) fn boolean(input: Input<'_>) -> Parsed<bool> {
    match input {
        Input::Toml(value) => value.as_bool().ok_or_else(|| "true or false".to_owned()),
        Input::Text("1" | "true") => Ok(true),
        Input::Text("0" | "false") => Ok(false),
        Input::Text(_) => Err("0, 1, true or false".to_owned()),
    }
}

/// A time from `min` to [`LONGEST`]: a string with a unit in the file, milliseconds in the
/// environment.
pub(super) fn duration(min: Duration) -> impl Fn(Input<'_>) -> Parsed<Duration> {
    move |input| {
        let (parsed, expected) = match input {
            Input::Toml(value) => {
                let short = if min <= Duration::from_millis(500) { "\"500ms\", " } else { "" };
                let from = humantime::format_duration(min);
                (
                    value.as_str().and_then(|text| humantime::parse_duration(text.trim()).ok()),
                    format!("a duration from {from} to 7days, such as {short}\"30s\" or \"2m\""),
                )
            }
            Input::Text(text) => (
                text.parse().ok().map(Duration::from_millis),
                format!("whole milliseconds from {} to {}", min.as_millis(), LONGEST.as_millis()),
            ),
        };
        parsed.filter(|time| (min..=LONGEST).contains(time)).ok_or(expected)
    }
}

/// A value that need not be there.
pub(super) fn some<T>(parse: impl Fn(Input<'_>) -> Parsed<T>) -> impl Fn(Input<'_>) -> Parsed<Option<T>> {
    move |input| parse(input).map(Some)
}

/// A value where zero means none.
pub(super) fn none_if_zero<T: Default + PartialEq>(
    parse: impl Fn(Input<'_>) -> Parsed<T>,
) -> impl Fn(Input<'_>) -> Parsed<Option<T>> {
    move |input| parse(input).map(|value| Some(value).filter(|value| *value != T::default()))
}

/// A time where zero means none.
pub(super) fn duration_or_none(input: Input<'_>) -> Parsed<Option<Duration>> {
    none_if_zero(duration(Duration::ZERO))(input).map_err(|expected| format!("{expected}; \"0\" for none"))
}

/// A number of bytes from `min` to `max`, with or without a unit.
pub(super) fn size(min: u64, max: u64) -> impl Fn(Input<'_>) -> Parsed<u64> {
    move |input| {
        input
            .text()
            .and_then(|text| ByteSize::from_str(text.trim()).ok())
            .map(|size| size.as_u64())
            .filter(|size| (min..=max).contains(size))
            .ok_or_else(|| match (min, max) {
                (0, u64::MAX) => {
                    "a size such as \"64KiB\" or \"512MB\", a string; \"0\" for no limit".to_owned()
                }
                _ => format!("a size from \"{}\" to \"{}\", a string", ByteSize(min), ByteSize(max)),
            })
    }
}

/// One of some words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> impl Fn(Input<'_>) -> Parsed<T> {
    move |input| {
        let text = input.text();
        words.iter().find(|(word, _)| Some(*word) == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            words.join(" or ")
        })
    }
}

/// One of some numbers.
pub(super) fn choice_of(numbers: &'static [u16]) -> impl Fn(Input<'_>) -> Parsed<u16> {
    move |input| {
        let number = input.integer().and_then(|number| u16::try_from(number).ok());
        number.filter(|number| numbers.contains(number)).ok_or_else(|| {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            numbers.join(" or ")
        })
    }
}

/// A string that `fits`.
pub(super) fn text(
    expected: &'static str,
    fits: impl Fn(&str) -> bool,
) -> impl Fn(Input<'_>) -> Parsed<String> {
    move |input| input.text().filter(|text| fits(text)).map(str::to_owned).ok_or_else(|| expected.to_owned())
}

/// An instance name.
pub(super) fn instance_name(input: Input<'_>) -> Parsed<String> {
    text(NAME_EXPECTED, is_instance_name)(input)
}

/// Whether `name` can name an instance and its files.
pub fn is_instance_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// An admin token: it has to fit into a header.
pub(super) fn token(input: Input<'_>) -> Parsed<String> {
    text("1 to 4096 printable ASCII characters without spaces", |token| {
        (1..=4096).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
    })(input)
}

/// A path of a URL, as it is sent.
pub(super) fn url_path(input: Input<'_>) -> Parsed<String> {
    text("a path that starts with `/`, without spaces, control characters or `#`", |path| {
        path.starts_with('/')
            && !path.contains('#')
            && path.bytes().all(|b| b.is_ascii_graphic())
            && path.parse::<http::uri::PathAndQuery>().is_ok()
    })(input)
}

/// The name of a gRPC service, or the empty name of the whole server.
pub(super) fn grpc_service(input: Input<'_>) -> Parsed<String> {
    text("the name of a gRPC service such as \"shop.v1.Cart\", or \"\" for the whole server", |name| {
        name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic())
    })(input)
}

/// The prefix of the admin paths.
pub(super) fn prefix(input: Input<'_>) -> Parsed<String> {
    text("`/` and at least one more of letters, digits, `_`, `-`, `.`, `~` or `/`", |prefix| {
        (2..=64).contains(&prefix.len())
            && prefix.starts_with('/')
            && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.~/".contains(&b))
    })(input)
}

/// A protocol that a client may upgrade to, in lower case. HTTP itself is refused: requests over
/// such a connection would bypass everything that portok does for a request.
pub(super) fn upgrade(input: Input<'_>) -> Parsed<String> {
    let is_http = |name: &str| name.starts_with("http") || name == "h2" || name == "h2c";
    let parsed = text("the name of a protocol such as \"websocket\", and not HTTP's own (h2c)", |name| {
        http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !is_http(&name.to_ascii_lowercase())
    })(input)?;
    Ok(parsed.to_ascii_lowercase())
}

/// The value of a `Host` header.
pub(super) fn host(input: Input<'_>) -> Parsed<String> {
    text("a host name or address, with or without a port", |host| {
        host.len() <= 255
            && host.parse::<http::uri::Authority>().is_ok_and(|authority| !authority.as_str().contains('@'))
    })(input)
}

/// The name of a host, without a port; in lower case, without a dot at its end.
pub(super) fn host_name(input: Input<'_>) -> Parsed<String> {
    text("the name of a host, without a port", |name| {
        (1..=253).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && name.split('.').all(|label| !label.is_empty())
    })(input)
    .map(|name| name.to_ascii_lowercase())
}

/// The name of an environment variable that shells can use.
pub(super) fn variable_name(input: Input<'_>) -> Parsed<String> {
    text("a variable's name: letters, digits and `_`, not starting with a digit", |name| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })(input)
}

/// Whether `name` can be the name of any variable.
pub(super) fn is_variable(name: &str) -> Parsed<()> {
    match name {
        "" => Err("a variable's name, not an empty one".to_owned()),
        _ if name.contains(['=', '\0']) => Err("a variable's name, without `=` and NUL".to_owned()),
        _ => Ok(()),
    }
}

/// A user or group of the system, by name or number.
pub(super) fn account(input: Input<'_>) -> Parsed<String> {
    text("the name or number of a user or group", |name| {
        (1..=256).contains(&name.len())
            && !name.starts_with('-')
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/')
    })(input)
}

/// A path of the file system. A relative path starts at the working directory of the process.
pub(super) fn path(input: Input<'_>) -> Parsed<PathBuf> {
    text("a path", |path| (1..=4095).contains(&path.len()) && !path.contains('\0'))(input)
        .and_then(|path| std::path::absolute(path).map_err(|error| format!("a path ({error})")))
}

/// The path of a unix socket. `sun_path` has 108 bytes, the last one for NUL (unix(7)).
pub(super) fn socket_path(input: Input<'_>) -> Parsed<PathBuf> {
    path(input).and_then(|path| match path.as_os_str().len() {
        0..=SOCKET_PATH_MAX => Ok(path),
        length => {
            Err(format!("a path of at most {SOCKET_PATH_MAX} bytes (a unix socket's limit), not {length}"))
        }
    })
}

/// The longest path of a unix socket, in bytes.
pub(super) const SOCKET_PATH_MAX: usize = 107;

/// A command: shell text, or, in the file, words as well.
pub(super) fn command(input: Input<'_>) -> Parsed<CommandLine> {
    let expected = "a command for /bin/sh, or an array of program and arguments";
    match input {
        Input::Toml(DeValue::Array(_)) => words(input).map(CommandLine::Exec),
        _ => text(expected, |text| !text.trim().is_empty() && !text.contains('\0'))(input)
            .map(CommandLine::Shell),
    }
}

/// A program and its arguments, executed without a shell.
pub(super) fn words(input: Input<'_>) -> Parsed<Vec<String>> {
    let words = match input {
        Input::Toml(DeValue::Array(items)) => {
            items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    words
        .filter(|words| words.first().is_some_and(|program| !program.trim().is_empty()))
        .filter(|words| words.iter().all(|word| !word.contains('\0')))
        .ok_or_else(|| "an array of strings, first the program".to_owned())
}

/// An address or a range of addresses. An IPv4-mapped IPv6 address means the IPv4 address.
pub(super) fn net(input: Input<'_>) -> Parsed<IpNet> {
    let parse = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => match text.parse::<IpNet>().ok()? {
            IpNet::V6(net) if net.prefix_len() >= 96 => Some(match net.addr().to_ipv4_mapped() {
                Some(v4) => IpNet::V4(Ipv4Net::new(v4, net.prefix_len() - 96).ok()?),
                None => IpNet::V6(net),
            }),
            net => Some(net),
        },
    };
    input
        .text()
        .and_then(|text| parse(text.trim()))
        .ok_or_else(|| "an address or a range, such as \"10.0.0.7\", \"10.0.0.0/8\" or \"::1\"".to_owned())
}

/// A signal by name, with or without `SIG`.
pub(super) fn signal(input: Input<'_>) -> Parsed<StopSignal> {
    input.text().and_then(StopSignal::named).ok_or_else(|| {
        let names: Vec<_> = stop_signal::ALL.iter().map(|signal| signal.name).collect();
        format!("one of {}", names.join(", "))
    })
}
