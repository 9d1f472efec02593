//! What holds for any list that Redis holds, and for any bytes that a script packs. For tests and
//! the fuzz targets.

use super::bounds::Bounds;
use super::list::Frontend;
use super::packed::Packed;

/// The first line is the key of a list, the others are its elements. A list that is taken is known
/// again, and leads nowhere but to addresses that are allowed.
pub(crate) fn lists(bytes: &[u8]) {
    unpack(bytes);
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let Some(Ok(key)) = lines.next().map(str::from_utf8) else { return };
    let elements: Vec<&[u8]> = lines.collect();
    let allow = ["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"].iter().filter_map(|range| range.parse().ok());
    let listen = ["127.0.0.1:80"].iter().filter_map(|address| address.parse().ok()).collect();
    let bounds = Bounds { allow: allow.collect(), listen, ..Bounds::default() };
    if let Ok(frontend) = Frontend::read(key, &elements, &bounds) {
        assert!(frontend.is_of(key, &elements));
        assert!(!frontend.targets().is_empty());
        for target in frontend.targets() {
            assert!(bounds.allow.iter().any(|range| range.contains(&target.ip())), "{target}");
            assert!(!bounds.listen.contains(target), "{target}");
        }
    }
}

/// Reads values until one is none.
fn unpack(bytes: &[u8]) {
    let mut packed = Packed::new(bytes);
    let mut read = 0;
    while read <= bytes.len() && (packed.array().is_some() || packed.bytes().is_some()) {
        read += 1;
    }
    assert!(read <= bytes.len(), "every value takes a byte");
}
