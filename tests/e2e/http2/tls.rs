//! HTTP/2 over TLS: what the handshake agrees on is what is spoken.

use super::floods::{assert_others_are_served, conf, started};
use super::frames::*;
use crate::harness::World;
use crate::harness::tls::Authority;
use crate::listeners::free;

#[test]
fn the_handshake_says_which_version_is_spoken() {
    let world = World::new();
    let authority = Authority::new();
    let [plain_addr, encrypted] = free();
    let folder = world.path("certs");
    std::fs::create_dir_all(&folder).unwrap();
    authority.issue(&["a.test"]).put(&folder, "a");
    authority.issue(&["b.test"]).put(&folder, "b");
    let conf = conf(&world)
        .set("listen", plain_addr.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", folder.display().to_string());
    let daemon = started(&world, &conf);
    let terms = authority.terms();
    let new = terms.speaking(&[b"h2", b"http/1.1"]);
    let fields = |host| {
        [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/"), ("x-echo", "1")]
    };

    let conn = new.connect(encrypted, "a.test").unwrap();
    assert_eq!(conn.tls().alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client::over(conn);
    client.send(&headers(1, ALONE, &fields("a.test")));
    let answer = client.answer(1).unwrap();
    let seen = String::from_utf8_lossy(&answer.body).to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
    assert!(seen.contains("x-forwarded-port: 443\r\n"), "{seen}");
    // A host that the certificate is not for needs a connection of its own (RFC 9110, 7.4), and the
    // others of this one go on.
    client.send(&headers(3, ALONE, &fields("b.test")));
    let answer = client.answer(3).unwrap();
    assert_eq!((answer.status(), answer.value("portok-error")), (421, Some("misdirected")));
    client.send(&headers(5, ALONE, &fields("a.test")));
    assert_eq!(client.answer(5).unwrap().status(), 200);

    // Who agreed on HTTP/2 speaks nothing else, and the other way round.
    let mut conn = new.connect(encrypted, "a.test").unwrap();
    conn.send(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
    let mut other = Client::silent(conn);
    other.end();
    assert!(!other.late);
    for terms in [terms.clone(), terms.speaking(&[b"http/1.1"]), terms.speaking(&[b"http/1.1", b"h2c"])] {
        let mut conn = terms.connect(encrypted, "a.test").unwrap();
        assert_ne!(conn.tls().alpn_protocol(), Some(&b"h2"[..]));
        conn.request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
        let mut conn = terms.connect(encrypted, "a.test").unwrap();
        conn.send(&[PREFACE, &settings(&[])].concat()).unwrap();
        let said = conn.rest().unwrap_or_default();
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{:?}", said.escape_ascii());
    }
    let unknown = terms.speaking(&[b"spdy/3"]).refused(encrypted, "a.test").to_ascii_lowercase();
    assert!(unknown.contains("noapplicationprotocol"), "{unknown}");
    let mut another = Client::connect(daemon.addr);
    assert_others_are_served(&daemon, &mut another, 0);
}
