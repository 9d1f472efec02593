//! The cookie that names a member: found in a request, taken off it, and set. Pure.
//!
//! Cookies are what stands between semicolons (RFC 6265, 4.2.1 and 5.4), also between quotes, where
//! a cookie cannot have one. Names are compared byte for byte, without the blanks around them. What
//! has the name and names no place is taken off too. Other cookies stay as they were, byte for
//! byte.

use std::borrow::Cow;

use super::Place;
use crate::proxy::address::Scheme;

/// The cookie of one app.
#[derive(Debug)]
pub(in crate::proxy) struct Cookie {
    name: Box<str>,
}

impl Cookie {
    /// That of `app`.
    pub(super) fn of(app: &str) -> Self {
        Self { name: format!("portok_sticky_{app}").into() }
    }

    /// The place that the first of its cookies in `fields` names that names one.
    pub(super) fn named<'a>(&self, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Place> {
        let lines = fields.filter(|(name, _)| is_cookie(name)).map(|(_, value)| value);
        lines.flat_map(cookies).filter(|cookie| self.is_own(cookie)).find_map(|cookie| {
            let value = cookie.splitn(2, |&byte| byte == b'=').nth(1)?;
            Place::read(value.trim_ascii())
        })
    }

    /// `fields` without it. A field in which nothing is left is left out.
    pub(super) fn others<'a, N>(
        &self,
        fields: impl Iterator<Item = (N, &'a [u8])>,
    ) -> impl Iterator<Item = (N, Cow<'a, [u8]>)>
    where
        N: AsRef<[u8]>,
    {
        fields.filter_map(|(name, value)| {
            let left = if is_cookie(name.as_ref()) { self.taken_off(value)? } else { value.into() };
            Some((name, left))
        })
    }

    /// The value of a `Cookie` field without it. `None`: nothing else is there.
    fn taken_off<'a>(&self, value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if !cookies(value).any(|cookie| self.is_own(cookie)) {
            return Some(value.into());
        }
        let others: Vec<_> = cookies(value).filter(|cookie| !self.is_own(cookie)).collect();
        let left = others.join(&b';');
        let left = left.trim_ascii_start();
        (!left.is_empty()).then(|| left.to_vec().into())
    }

    fn is_own(&self, cookie: &[u8]) -> bool {
        let name = cookie.split(|&byte| byte == b'=').next().unwrap_or_default();
        name.trim_ascii() == self.name.as_bytes()
    }

    /// The value of a `Set-Cookie` that names `place`, until the browser ends. One that came over
    /// TLS is never sent without it.
    pub(super) fn naming(&self, place: Place, scheme: Scheme) -> String {
        let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
        format!("{}={place}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name)
    }
}

fn is_cookie(field: &[u8]) -> bool {
    field.eq_ignore_ascii_case(b"cookie")
}

fn cookies(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b';')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The place that the lines name, and what the app gets of them.
    fn passed(lines: &[&str]) -> (Option<u16>, Vec<String>) {
        let cookie = Cookie::of("shop");
        let fields = || lines.iter().map(|line| (&b"CooKie"[..], line.as_bytes()));
        let left = cookie.others(fields()).map(|(_, value)| String::from_utf8(value.into_owned()).unwrap());
        (cookie.named(fields()).map(Place::number), left.collect())
    }

    #[test]
    fn it_is_found_and_taken_off_and_the_others_stay() {
        for (lines, place, left) in [
            (&["portok_sticky_shop=7"][..], Some(7), &[][..]),
            (&["a=1; portok_sticky_shop=7; b=2"], Some(7), &["a=1; b=2"]),
            (&["portok_sticky_shop=7; b=2"], Some(7), &["b=2"]),
            (&["a=1; portok_sticky_shop=7"], Some(7), &["a=1"]),
            (&["a=1;portok_sticky_shop=7;b=2;"], Some(7), &["a=1;b=2;"]),
            (&["a=\" x\" ;  b ; ; portok_sticky_shop = 7 "], Some(7), &["a=\" x\" ;  b ; "]),
            (&["portok_sticky_shop=7;"], Some(7), &[]),
            (&["portok_sticky_shop=7; "], Some(7), &[]),
            // Several lines, each by itself.
            (&["a=1", "portok_sticky_shop=65535", "b=2; portok_sticky_shop=8"], Some(65535), &["a=1", "b=2"]),
            // Twice: the first that names a place.
            (&["portok_sticky_shop=7; portok_sticky_shop=8"], Some(7), &[]),
            (&["portok_sticky_shop=x; a=1; portok_sticky_shop=8"], Some(8), &["a=1"]),
            // What names no place.
            (&["portok_sticky_shop=; a=1"], None, &["a=1"]),
            (&["portok_sticky_shop; a=1"], None, &["a=1"]),
            (&["portok_sticky_shop=\"7\""], None, &[]),
            (&["portok_sticky_shop=07"], None, &[]),
            (&["portok_sticky_shop=+7"], None, &[]),
            (&["portok_sticky_shop=-1"], None, &[]),
            (&["portok_sticky_shop=65536"], None, &[]),
            (&["portok_sticky_shop=7=7"], None, &[]),
            (&["portok_sticky_shop=127.0.0.1:80"], None, &[]),
            // Others, whose names only begin or end alike.
            (&["portok_sticky_shop2=7"], None, &["portok_sticky_shop2=7"]),
            (&["portok_sticky_sho=7"], None, &["portok_sticky_sho=7"]),
            (&["xportok_sticky_shop=7"], None, &["xportok_sticky_shop=7"]),
            (&["Portok_Sticky_Shop=7"], None, &["Portok_Sticky_Shop=7"]),
            (&["a=portok_sticky_shop=7"], None, &["a=portok_sticky_shop=7"]),
            (&["=portok_sticky_shop=7", "", " ;; "], None, &["=portok_sticky_shop=7", "", " ;; "]),
            // A quote does not hide it.
            (&["a=\"x; portok_sticky_shop=7; y\""], Some(7), &["a=\"x; y\""]),
        ] {
            let left = left.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(passed(lines), (place, left), "{lines:?}");
        }
    }

    #[test]
    fn other_fields_pass_and_a_long_one_is_read_to_its_end() {
        let cookie = Cookie::of("shop");
        let long = format!("a={}; portok_sticky_shop=9; b=2", "x".repeat(8 * 1024));
        let fields = [("cookie2", "portok_sticky_shop=7"), ("cookie", &*long), ("x", "portok_sticky_shop=7")];
        let fields = || fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        assert_eq!(cookie.named(fields()).map(Place::number), Some(9));
        let left: Vec<_> = cookie.others(fields()).map(|(_, value)| value.len()).collect();
        assert_eq!(left, [20, long.len() - "portok_sticky_shop=9; ".len(), 20]);
    }

    #[test]
    fn it_is_a_session_cookie_that_no_script_reads() {
        let set = Cookie::of("shop").naming(Place::new(7), Scheme::Http);
        assert_eq!(set, "portok_sticky_shop=7; Path=/; HttpOnly; SameSite=Lax");
    }

    /// The cookies of a line as name and value, the simple way.
    fn pairs(line: &str) -> Vec<(String, Option<String>)> {
        let all = line.split(';').map(str::trim).filter(|cookie| !cookie.is_empty());
        all.map(|cookie| match cookie.split_once('=') {
            Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
            None => (cookie.to_owned(), None),
        })
        .collect()
    }

    fn line() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("portok_sticky_shop=".to_owned()),
            1 => Just("portok_sticky_shop".to_owned()),
            1 => Just("portok_sticky_shopx=".to_owned()),
            3 => "[0-9]{1,6}",
            4 => Just(";".to_owned()),
            3 => Just("; ".to_owned()),
            2 => "[ -~\t]{0,4}",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        #[test]
        fn what_is_left_is_what_was_there_but_for_it(line in line()) {
            let (own, others): (Vec<_>, Vec<_>) =
                pairs(&line).into_iter().partition(|(name, _)| name == "portok_sticky_shop");
            let (place, left) = passed(&[&line]);
            let is_place = |value: &String| value.parse::<u16>().is_ok_and(|place| place.to_string() == *value);
            let named = own.iter().find_map(|(_, value)| value.clone().filter(is_place));
            prop_assert_eq!(place.map(|place| place.to_string()), named);
            if own.is_empty() {
                prop_assert_eq!(&left, &[line]);
            } else {
                prop_assert_eq!(left.iter().flat_map(|line| pairs(line)).collect::<Vec<_>>(), others);
                prop_assert!(left.iter().all(|line| !line.is_empty()));
            }
        }
    }
}
