//! What a request's target names (RFC 9112, 3.2): its host, and the bytes that go on to the app.
//! Pure.

use super::host::is_host;

/// A request's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestTarget<'a> {
    /// The host of an absolute target.
    pub(crate) authority: Option<&'a [u8]>,
    /// Path and query, or `*`. The path of an absolute target may be missing.
    pub(crate) path: &'a [u8],
}

impl<'a> RequestTarget<'a> {
    /// Reads `bytes`, the target of a request; `options`: its method is `OPTIONS`. Returns `None`
    /// if no app can be asked for it. A path may have any bytes but `#`; control characters and
    /// spaces have been refused before.
    pub(crate) fn of(bytes: &'a [u8], options: bool) -> Option<Self> {
        match bytes {
            _ if bytes.contains(&b'#') => None,
            [b'/', ..] => Some(Self { authority: None, path: bytes }),
            b"*" => options.then_some(Self { authority: None, path: bytes }),
            _ => Self::absolute(bytes, options),
        }
    }

    fn absolute(bytes: &'a [u8], options: bool) -> Option<Self> {
        let colon = bytes.iter().position(|&byte| byte == b':')?;
        let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let rest = bytes[colon..].strip_prefix(b"://")?;
        let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let fits = colon > 0 && bytes[..colon].iter().all(is_scheme) && is_host(authority);
        // A request to the host as a whole (RFC 9112, 3.2.4).
        let path = if path.is_empty() && options { b"*" } else { path };
        fits.then_some(Self { authority: Some(authority), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_pass_as_they_are() {
        for path in [&b"/"[..], b"//a", b"/a<b", b"/?q=\"x\"", b"/{}|\\^`", b"/\xfc?\xff"] {
            assert_eq!(RequestTarget::of(path, false), Some(RequestTarget { authority: None, path }));
            let absolute = [b"http://h:8", path].concat();
            assert_eq!(
                RequestTarget::of(&absolute, false),
                Some(RequestTarget { authority: Some(b"h:8"), path })
            );
        }
        let read = |text: &'static str, options| {
            let read = RequestTarget::of(text.as_bytes(), options)?;
            Some((
                str::from_utf8(read.authority.unwrap_or_default()).unwrap(),
                str::from_utf8(read.path).unwrap(),
            ))
        };
        assert_eq!(read("*", true), Some(("", "*")));
        assert_eq!(read("http://h", true), Some(("h", "*")));
        assert_eq!(read("http://h/", true), Some(("h", "/")));
        assert_eq!(read("http://h?", true), Some(("h", "?")));
        assert_eq!(read("http://h", false), Some(("h", "")));
        assert_eq!(read("ws+x://[::1]:8?a:b/c", false), Some(("[::1]:8", "?a:b/c")));
    }

    #[test]
    fn what_no_app_can_be_asked_for_is_none() {
        for target in [
            "",
            "*",
            "a",
            "a:80",
            "?a",
            "/a#b",
            "/?#",
            "#",
            "http:/h/",
            "http//h/",
            "://h/",
            "ht tp://h/",
            "http://",
            "http:///x",
            "http://u@h/",
            "http://h<i/",
            "http://h:x/",
            "http://[::1/",
        ] {
            assert_eq!(RequestTarget::of(target.as_bytes(), false), None, "{target}");
        }
    }
}
