//! What a request carries beside its path: query, `Accept`, and the body of a deploy.
//!
//! Only the form is judged here. No message repeats a value of the body, because it may be a
//! secret.

use std::borrow::Cow;
use std::path::PathBuf;

use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::Value;

use crate::release::orders::{Order, Page};
use crate::wire::{
    self, Code, CommandLine, DIRECTORY_HEADER, DeployRequest, ErrorBody, MaintenanceRequest, UpgradeRequest,
};

/// The longest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// The longest body of a maintenance: every byte of its page may take six.
pub(super) const MAX_MAINTENANCE: usize = 6 * wire::PAGE_MOST + 1024;
/// The longest health path, in bytes.
const MAX_PATH: usize = 2048;
/// The keys of a deploy's body.
const DEPLOY_KEYS: [&str; 5] = ["command", "directory", "env", "release", "healthPath"];

/// A `bad_request`.
pub(super) fn bad(message: impl Into<String>) -> Box<ErrorBody> {
    Box::new(ErrorBody::new(Code::BadRequest, "Bad request", message))
}

/// A request's query, decoded.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Takes `text` apart at `&` and `=`. Empty parts are ignored.
    ///
    /// # Errors
    /// `bad_request`: a `%` without two hexadecimal digits, or no UTF-8 once decoded.
    pub(super) fn parse(text: &'a str) -> Result<Self, Box<ErrorBody>> {
        text.split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                Ok((decoded(name)?, decoded(value)?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The value of `name`, if the query has it.
    ///
    /// # Errors
    /// `bad_request`: the query has it more than once.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Box<ErrorBody>> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_ref());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(bad(format!("the parameter `{name}` is given more than once"))),
        }
    }
}

impl Query<'_> {
    /// Refuses parameters that are not among `known`.
    ///
    /// # Errors
    /// `bad_request`, with the first one.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Box<ErrorBody>> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_ref())) {
            None => Ok(()),
            Some((name, _)) => {
                let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                Err(bad(format!("there is no parameter `{name}` here; there are {}", known.join(", "))))
            }
        }
    }

    /// All values of `name`, in their order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_ref())
    }
}

/// Percent-decodes (RFC 3986, 2.1).
fn decoded(text: &str) -> Result<Cow<'_, str>, Box<ErrorBody>> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
            rest = after;
            let high = char::from(digits[0]).to_digit(16)?;
            let low = char::from(digits[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        });
        bytes.push(
            digits.ok_or_else(|| bad("the query holds a `%` without two hexadecimal digits after it"))?,
        );
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| bad("the query is not UTF-8 once it is decoded"))
}

/// Whether `Accept` names `wanted` and does not prefer JSON, by quality and then by place.
/// Wildcards count for nothing, so that a client that takes anything gets JSON.
pub(super) fn prefers(headers: &HeaderMap, wanted: &str) -> bool {
    let mut best: Option<(&str, f32)> = None;
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let quality = parts
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
        let known = [wanted, "application/json"].into_iter().find(|known| kind.eq_ignore_ascii_case(known));
        if let Some(kind) = known
            && quality > best.map_or(0.0, |(_, quality)| quality)
        {
            best = Some((kind, quality));
        }
    }
    best.is_some_and(|(kind, _)| kind == wanted)
}

/// Whether `id` may name a release: `[A-Za-z0-9._-]`, 1 to 64 characters.
pub(super) fn is_release(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// Reads the body of an upgrade: a program, or `None` for the daemon's own.
///
/// # Errors
/// `bad_request`: another key, or a path that is not absolute.
pub(super) fn upgrade(body: &[u8]) -> Result<Option<PathBuf>, Box<ErrorBody>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let request: UpgradeRequest = serde_json::from_slice(body)
        .map_err(|_| bad("the body has to be a JSON object with at most the key `binary`, a text"))?;
    match request.binary.map(PathBuf::from) {
        Some(path) if !path.is_absolute() => Err(bad("`binary` has to be an absolute path")),
        path => Ok(path),
    }
}

/// Reads the body of a maintenance.
///
/// # Errors
/// `bad_request`: another key or kind of value, a status that cannot have a page, a page that is
/// too long, or what has no place where it ends.
pub(super) fn maintenance(body: &[u8]) -> Result<Order, Box<ErrorBody>> {
    let request = Some(body.trim_ascii()).filter(|body| body.starts_with(b"{"));
    let request = request.and_then(|body| serde_json::from_slice::<MaintenanceRequest>(body).ok());
    let MaintenanceRequest { on, status, page } = request.ok_or_else(|| {
        bad("the body has to be a JSON object with the key `on`, true or false, and at most the keys `status`, \
             a number, and `page`, a text")
    })?;
    if !on {
        return match (status, &page) {
            (None, None) => Ok(Order::Maintenance(None)),
            _ => Err(bad("`status` and `page` have no place where `on` is false")),
        };
    }
    let has_page = |status: &u16| (200..600).contains(status) && !matches!(status, 204 | 205 | 304);
    if status.as_ref().is_some_and(|status| !has_page(status)) {
        return Err(bad("`status` has to be a number from 200 to 599, and one of an answer with a body"));
    }
    if page.as_ref().is_some_and(|page| page.len() > wire::PAGE_MOST) {
        return Err(bad(format!("`page` is longer than {} bytes", wire::PAGE_MOST)));
    }
    Ok(Order::Maintenance(Some(Page { status, html: page })))
}

/// Reads the body of a deploy. An empty body deploys the app as it is configured.
///
/// # Errors
/// `bad_request`, with the key and what was expected.
pub(super) fn deploy(body: &[u8]) -> Result<DeployRequest, Box<ErrorBody>> {
    if body.trim_ascii().is_empty() {
        return Ok(DeployRequest::default());
    }
    // serde would take an array as well, with the values in the order of the fields.
    let shaped = match serde_json::from_slice(body) {
        Ok(request) if body.trim_ascii().starts_with(b"{") => Ok(request),
        Ok(_) => Err("the body has to be a JSON object".to_owned()),
        Err(error) => Err(complaint(body, &error)),
    };
    let request = shaped.map_err(bad)?;
    check(&request).map_err(bad)?;
    Ok(request)
}

/// Lets a command without a directory run in its caller's, which a header names.
///
/// # Errors
/// `bad_request`: not an absolute path, or not UTF-8.
pub(super) fn run_where_the_caller_is(
    deploy: &mut DeployRequest,
    headers: &HeaderMap,
) -> Result<(), Box<ErrorBody>> {
    let Some(place) = headers.get(DIRECTORY_HEADER) else { return Ok(()) };
    if deploy.command.is_some() && deploy.directory.is_none() {
        let place = str::from_utf8(place.as_bytes()).ok().filter(|place| place.starts_with('/'));
        let place =
            place.ok_or_else(|| bad(format!("{DIRECTORY_HEADER} has to be an absolute path in UTF-8")))?;
        deploy.directory = Some(place.to_owned());
    }
    Ok(())
}

/// What is wrong with a body that is no [`DeployRequest`]. It names the key, which serde does not.
fn complaint(body: &[u8], error: &serde_json::Error) -> String {
    let root = match serde_json::from_slice::<Value>(body) {
        Ok(root) => root,
        Err(error) => return format!("the body is not JSON: {error}"),
    };
    let Value::Object(keys) = root else {
        return format!("the body has to be a JSON object, not {}", kind(&root));
    };
    for (key, value) in &keys {
        let expected = match key.as_str() {
            "command" => match value {
                Value::String(_) | Value::Null => continue,
                Value::Array(words) => match words.iter().find(|word| !word.is_string()) {
                    None => continue,
                    Some(word) => {
                        return format!("`command`: expected strings in the array, not {}", kind(word));
                    }
                },
                _ => "a string or an array of strings",
            },
            "env" => match value {
                Value::Null => continue,
                Value::Object(variables) => match variables.iter().find(|(_, value)| !value.is_string()) {
                    None => continue,
                    Some((name, value)) => {
                        return format!(
                            "`env`: the variable {name:?} has to be a string, not {}",
                            kind(value)
                        );
                    }
                },
                _ => "an object of strings",
            },
            "directory" | "release" | "healthPath" => match value {
                Value::String(_) | Value::Null => continue,
                _ => "a string",
            },
            _ => return format!("unknown key {key:?}, expected {}", DEPLOY_KEYS.join(", ")),
        };
        return format!("`{key}`: expected {expected}, not {}", kind(value));
    }
    // What is left is about keys alone (one is there twice). These messages of serde have no value
    // in them.
    error.to_string()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn check(request: &DeployRequest) -> Result<(), String> {
    if let Some(command) = &request.command {
        let (empty, nul) = match command {
            CommandLine::Shell(text) => (text.trim().is_empty(), text.contains('\0')),
            CommandLine::Exec(words) => {
                (words.first().is_none_or(String::is_empty), words.iter().any(|word| word.contains('\0')))
            }
        };
        if empty {
            return Err("`command` is empty".to_owned());
        }
        if nul {
            return Err("`command` holds a NUL character".to_owned());
        }
    }
    if let Some(directory) = &request.directory
        && (!directory.starts_with('/') || directory.contains('\0'))
    {
        return Err("`directory` has to be an absolute path".to_owned());
    }
    for (name, value) in request.env.iter().flatten() {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("`env`: {name:?} cannot name a variable: it is empty, or holds `=` or NUL"));
        }
        if value.contains('\0') {
            return Err(format!("`env`: the value of {name} holds a NUL character"));
        }
    }
    if let Some(release) = &request.release
        && !is_release(release)
    {
        return Err("`release` has to be 1 to 64 characters of A-Z, a-z, 0-9, `.`, `_` and `-`".to_owned());
    }
    if let Some(path) = &request.health_path {
        // It is sent in a request line as it is.
        let safe = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !path.starts_with('/') || !safe || path.len() > MAX_PATH {
            return Err(format!(
                "`healthPath` has to start with `/` and to be visible ASCII without `#`, at most {MAX_PATH} characters"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(values: &[&str], wanted: &str) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        prefers(&headers, wanted)
    }

    #[test]
    fn a_query_is_decoded_strictly() {
        let query = Query::parse("port=80%381&&x=%C3%A9&flag&a=b=c&plus=1+1").unwrap();
        assert_eq!(query.get("port").unwrap(), Some("8081"));
        assert_eq!(query.get("x").unwrap(), Some("é"));
        assert_eq!(query.get("flag").unwrap(), Some(""));
        assert_eq!(query.get("a").unwrap(), Some("b=c"));
        assert_eq!(query.get("plus").unwrap(), Some("1+1"));
        assert_eq!(query.get("none").unwrap(), None);
        for broken in ["a=%", "a=%1", "a=%zz", "a=%+1", "a=%ff", "%=1"] {
            assert_eq!(Query::parse(broken).unwrap_err().code, Code::BadRequest, "{broken}");
        }
        let twice = Query::parse("port=1&p%6Frt=2&x=1&x=2").unwrap();
        assert!(twice.get("port").unwrap_err().message.contains("`port`"));
        assert_eq!(twice.get("lines").unwrap(), None);
    }

    #[test]
    fn accept_names_what_is_wanted() {
        let text = "text/plain";
        assert!(accept(&["text/plain"], text));
        assert!(accept(&["Text/Plain; version=0.0.4"], text));
        assert!(accept(&["text/html", "text/plain;q=0.2, */*;q=0.1"], text));
        // Prometheus 3 and 2.
        assert!(accept(
            &["application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"],
            text
        ));
        assert!(!accept(&[], text));
        assert!(!accept(&["*/*"], text));
        assert!(!accept(&["text/*"], text));
        assert!(!accept(&["text/plain;q=0"], text));
        assert!(!accept(&["text/plain;q=x"], text));
        assert!(!accept(&["application/json, text/plain, */*"], text), "what many HTTP libraries send");
        assert!(accept(&["application/json;q=0.5, text/plain"], text));
        assert!(accept(&["application/x-ndjson"], wire::NDJSON));
        assert!(!accept(&["application/json"], wire::NDJSON));
    }

    #[test]
    fn a_deploy_takes_the_known_keys_and_no_others() {
        for empty in ["", " \n", "{}", r#"{"command":null}"#] {
            assert_eq!(deploy(empty.as_bytes()).unwrap(), DeployRequest::default(), "{empty:?}");
        }
        let whole = deploy(
            br#"{"command":["node","app.js"],"directory":"/srv","env":{"A":"1","B":""},"release":"v1.2_3-x","healthPath":"/h?deep=1"}"#,
        )
        .unwrap();
        assert_eq!(whole.command, Some(CommandLine::Exec(vec!["node".into(), "app.js".into()])));
        assert_eq!(whole.env.unwrap().len(), 2);
        assert_eq!(whole.health_path.as_deref(), Some("/h?deep=1"));
    }

    #[test]
    fn a_bad_deploy_is_told_which_key_is_wrong_but_no_value() {
        let long_release = format!(r#"{{"release":"{}"}}"#, "a".repeat(65));
        for (body, named) in [
            ("not json", "not JSON"),
            ("{", "not JSON"),
            ("[]", "JSON object"),
            (r#"["hunter2","/",{},"v1","/h"]"#, "JSON object"),
            ("[1]", "not an array"),
            ("\"hunter2\"", "not a string"),
            (r#"{"user":"hunter2"}"#, "\"user\""),
            (r#"{"health_path":"hunter2"}"#, "\"health_path\""),
            (r#"{"command":7}"#, "`command`"),
            (r#"{"command":"hunter2","command":"b"}"#, "command"),
            (r#"{"command":["hunter2",1]}"#, "`command`"),
            (r#"{"command":"  "}"#, "`command`"),
            (r#"{"command":[]}"#, "`command`"),
            (r#"{"command":[""]}"#, "`command`"),
            (r#"{"command":"hunter2\u0000"}"#, "`command`"),
            (r#"{"directory":"hunter2"}"#, "`directory`"),
            (r#"{"directory":["hunter2"]}"#, "`directory`"),
            (r#"{"env":"PASSWORD=hunter2"}"#, "`env`"),
            (r#"{"env":{"PORT":3000}}"#, "\"PORT\""),
            (r#"{"env":{"A=B":"hunter2"}}"#, "\"A=B\""),
            (r#"{"env":{"":"hunter2"}}"#, "`env`"),
            (r#"{"env":{"A":"hunter2\u0000"}}"#, "of A holds"),
            (r#"{"release":""}"#, "`release`"),
            (r#"{"release":"a/b"}"#, "`release`"),
            (r#"{"release":"é"}"#, "`release`"),
            (&long_release, "`release`"),
            (r#"{"healthPath":"health"}"#, "`healthPath`"),
            (r#"{"healthPath":"/a b"}"#, "`healthPath`"),
            (r#"{"healthPath":"/a\r\nX: y"}"#, "`healthPath`"),
            (r#"{"healthPath":"/a#b"}"#, "`healthPath`"),
        ] {
            let error = deploy(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, Code::BadRequest, "{body}");
            assert!(error.message.contains(named), "{body}: {}", error.message);
            assert!(!error.message.contains("hunter2"), "{body}: {}", error.message);
        }
    }
}
