//! Whether a client takes HTML (RFC 9110, 12.5.1). Pure.

use crate::http1::fields::tokens;

/// Whether one of the `Accept` fields names HTML, and wants nothing of it less than JSON. A range
/// of everything (`*/*`) names neither: programs send it, and get JSON.
pub(in crate::proxy) fn takes_html<'a>(fields: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut html, mut json) = (0, 0);
    for part in fields.flat_map(tokens) {
        let mut parts = part.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(quality).unwrap_or(1000);
        match &*range {
            b"text/html" | b"application/xhtml+xml" | b"text/*" => html = html.max(quality),
            b"application/json" => json = json.max(quality),
            _ => {}
        }
    }
    html > 0 && html >= json
}

/// The weight in thousandths, if `parameter` is one. What cannot be read weighs nothing.
fn quality(parameter: &[u8]) -> Option<u32> {
    let (name, value) = parameter.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let value = str::from_utf8(value).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let thousandths = (value.clamp(0.0, 1.0) * 1000.0) as u32;
    Some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages_and_programs_do_not() {
        for (accept, takes) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("TEXT/HTML ; Q=0.5", true),
            ("text/*", true),
            ("application/json, text/html", true),
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("application/json, text/html;q=0.9", false),
            ("application/json;q=0.5, text/html;q=0.9", true),
            ("text/html;q=0", false),
            ("text/html;q=0.000", false),
            ("text/html;q=x", false),
            ("text/html;level=1;q=0.4, application/json;q=0.3", true),
            ("image/png, text/plain", false),
            ("text/htmlx", false),
        ] {
            assert_eq!(takes_html(std::iter::once(accept.as_bytes())), takes, "{accept}");
        }
        assert!(takes_html([&b"image/png"[..], b"text/html"].into_iter()));
        assert!(!takes_html(std::iter::empty()));
    }
}
