//! Clients that stay with one of several members, on every way of a request.

use std::net::{IpAddr, Ipv4Addr};

use super::spread::{Set, named, nobody};
use super::*;

const COOKIE: &str = "portok_sticky_shop";

/// An app that answers with its name and the `Cookie` fields that it got, and takes upgrades.
async fn telling(name: &'static str) -> Backend {
    Backend::start(move |mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let request = String::from_utf8(request).unwrap();
            let cookies = request.lines().filter(|line| line.to_ascii_lowercase().starts_with("cookie:"));
            let text = format!("{name} {}", cookies.collect::<Vec<_>>().join("|"));
            if request.contains("upgrade: websocket\r\n") {
                let switched = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                connection.send(format!("{switched}{text}\n")).await;
                while !connection.is_closed().await {}
                return;
            }
            let length = text.len();
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}")).await;
        }
    })
    .await
}

async fn apps() -> ([Backend; 3], [SocketAddr; 3]) {
    let apps = [telling("a").await, telling("b").await, telling("c").await];
    let addrs = [apps[0].addr, apps[1].addr, apps[2].addr];
    (apps, addrs)
}

fn by_cookie(app: &mut AppConfig) {
    (app.name, app.sticky) = ("shop".to_owned(), Sticky::Cookie);
}

/// The same request on each way that it may take: what stands before its fields, and behind them.
const WAYS: [(&str, &str, &str); 5] = [
    ("short", "GET / HTTP/1.1\r\nhost: a\r\n", "\r\n"),
    ("with a body", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n", "\r\nhi"),
    ("in chunks", "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n", "\r\n2\r\nhi\r\n0\r\n\r\n"),
    ("HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\n", "\r\n"),
    ("upgrade", "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n", "\r\n"),
];

/// The answer to a request with these `fields`, over a connection of its own: its head and its
/// text.
async fn ask(set: &Set, (_, begin, end): (&str, &str, &str), fields: &str) -> (Reply, String) {
    let mut client = set.rig.connect().await;
    client.send(format!("{begin}{fields}{end}")).await;
    let reply = client.reply().await;
    let text = match reply.status() {
        101 => String::from_utf8(client.until(b"\n").await).unwrap(),
        _ => reply.text().to_owned(),
    };
    (reply, text.trim_end().to_owned())
}

/// The cookie that an answer sets.
fn set_by(reply: &Reply) -> Option<&str> {
    let value = reply.header("set-cookie")?;
    let (cookie, rest) = value.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    assert!(cookie.starts_with(COOKIE), "{cookie}");
    Some(cookie)
}

#[tokio::test]
async fn a_client_stays_with_its_member_on_every_way_and_no_app_sees_the_cookie() {
    let (_apps, addrs) = apps().await;
    let set = Set::start(&addrs, Balance::RoundRobin, by_cookie);
    for first in WAYS {
        let (reply, text) = ask(&set, first, "").await;
        let cookie = set_by(&reply).unwrap_or_else(|| panic!("{}: {reply:?}", first.0));
        let member = &text[..1];
        for way in WAYS {
            // The others' turn goes on meanwhile.
            ask(&set, WAYS[0], "").await;
            let (reply, text) = ask(&set, way, &format!("Cookie: {cookie}\r\n")).await;
            assert_eq!((text.as_str(), set_by(&reply)), (member, None), "{}: {reply:?}", way.0);
            let others =
                format!("cookie: x=\"1\" ; {cookie};y\r\nX: {cookie}\r\ncookie: portok_sticky_b=3\r\n");
            let (reply, text) = ask(&set, way, &others).await;
            let (name, cookies) = text.split_once(' ').unwrap();
            assert_eq!((name, set_by(&reply)), (member, None), "{}: {reply:?}", way.0);
            assert_eq!(cookies.to_ascii_lowercase(), "cookie: x=\"1\" ;y|cookie: portok_sticky_b=3");
        }
    }
}

#[tokio::test]
async fn a_cookie_that_names_nobody_is_replaced_and_an_answer_of_portoks_own_sets_none() {
    let (_apps, addrs) = apps().await;
    let set = Set::start(&addrs, Balance::RoundRobin, by_cookie);
    for way in WAYS {
        for value in ["", "x", "70000", "\"1\""] {
            let (reply, text) = ask(&set, way, &format!("cookie: {COOKIE}={value}\r\n")).await;
            assert!(set_by(&reply).is_some() && text.len() == 1, "{}: {reply:?}", way.0);
        }
    }
    let set = Set::start(&[nobody().await, nobody().await], Balance::RoundRobin, by_cookie);
    for way in WAYS {
        let (reply, _) = ask(&set, way, "").await;
        assert_eq!((reply.status(), reply.header("set-cookie")), (502, None), "{}", way.0);
    }
}

#[tokio::test]
async fn without_sticky_nothing_is_set_or_taken_off() {
    let (_apps, addrs) = apps().await;
    let set = Set::start(&addrs, Balance::RoundRobin, |app| app.name = "shop".to_owned());
    for way in WAYS {
        let (reply, text) = ask(&set, way, &format!("cookie: {COOKIE}=1\r\n")).await;
        assert_eq!(reply.header("set-cookie"), None, "{}", way.0);
        assert_eq!(text[2..], format!("cookie: {COOKIE}=1"), "{}", way.0);
    }
}

#[tokio::test]
async fn a_client_keeps_its_member_while_others_come_and_go_and_gets_another_when_it_is_gone() {
    let (_apps, addrs) = apps().await;
    let mut set = Set::start(&addrs, Balance::RoundRobin, by_cookie);
    let (reply, text) = ask(&set, WAYS[0], "").await;
    assert_eq!(text, "a");
    let fields = format!("cookie: {}\r\n", set_by(&reply).unwrap());
    let [a, b, c] = addrs;
    for members in [&[c, a][..], &[a], &[b, a], &[c, b, a]] {
        set.publish(members, Balance::RoundRobin);
        for _ in 0..4 {
            let (reply, text) = ask(&set, WAYS[0], &fields).await;
            assert_eq!((&*text, set_by(&reply)), ("a", None), "{members:?}");
        }
    }
    let gone = set.targets[2].clone();
    set.publish(&[b, c], Balance::RoundRobin);
    gone.retire();
    let (reply, text) = ask(&set, WAYS[0], &fields).await;
    let fields = format!("cookie: {}\r\n", set_by(&reply).unwrap());
    set.publish(&addrs, Balance::RoundRobin);
    for _ in 0..4 {
        assert_eq!(ask(&set, WAYS[0], &fields).await.1, text, "it stays with the other");
    }
    // One that is out is not ready, and with the last one it does not matter.
    let counters = set.rig.counters.service();
    let own = set.targets.iter().position(|target| ask_name(target.addr(), &addrs) == text).unwrap();
    assert!(set.targets[own].put_out(LONG, counters));
    let (reply, other) = ask(&set, WAYS[0], &fields).await;
    assert!(other != text && set_by(&reply).is_some(), "{reply:?}");
    assert!(set.targets[own].take_in());
    let (reply, back) = ask(&set, WAYS[0], &fields).await;
    assert_eq!((back, set_by(&reply)), (text, None), "one that did not hear of it is back");
}

/// The name of the app at `addr`.
fn ask_name(addr: SocketAddr, addrs: &[SocketAddr; 3]) -> &'static str {
    ["a", "b", "c"][addrs.iter().position(|known| *known == addr).unwrap()]
}

#[tokio::test]
async fn a_refused_sticky_member_is_left_at_once_for_the_next() {
    let (_apps, addrs) = apps().await;
    let dead = nobody().await;
    let set = Set::start(&[dead, addrs[0]], Balance::RoundRobin, by_cookie);
    let places = Place::of_addresses("shop", [dead, addrs[0]].into_iter());
    for way in WAYS {
        let (reply, text) = ask(&set, way, &format!("cookie: {COOKIE}={}\r\n", places[0])).await;
        assert_eq!((&*text, set_by(&reply)), ("a", Some(&*format!("{COOKIE}={}", places[1]))), "{}", way.0);
        set.targets[0].take_in();
    }
}

#[tokio::test]
async fn a_pin_to_a_set_comes_before_the_cookie_and_the_cookie_before_the_balance() {
    let apps = [named("a0").await, named("a1").await, named("b0").await, named("b1").await];
    let addr = |number: usize| apps[number].addr;
    let mut set = Set::start(&[addr(0), addr(1)], Balance::RoundRobin, |app| {
        by_cookie(app);
        app.drain.affinity = Affinity::Connection;
    });
    // Two sets of processes have the same places.
    let publish = |set: &mut Set, addrs: [SocketAddr; 2]| {
        let release = set.rig.counters.service().release("r");
        set.targets = addrs.iter().map(|addr| Target::new(*addr, release.clone())).collect();
        set.tenure = Tenure::default();
        let spread = Spread::new(set.targets.clone(), Balance::RoundRobin, set.tenure.clone());
        let spread = spread.placed([Place::new(0), Place::new(1)].into());
        set.rig.routes.set(Now::Spread(Arc::new(spread)));
    };
    publish(&mut set, [addr(0), addr(1)]);
    let former = set.targets.clone();
    let mut pinned = set.rig.connect().await;
    let get = |place: u16| format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {COOKIE}={place}\r\n\r\n");
    let mut ask_pinned = async |request: String| {
        pinned.send(request).await;
        pinned.reply().await.text().to_owned()
    };
    for _ in 0..3 {
        assert_eq!(ask_pinned(get(1)).await, "a1", "the cookie before the balance");
    }
    publish(&mut set, [addr(2), addr(3)]);
    former.iter().for_each(|target| target.retire());
    for _ in 0..3 {
        assert_eq!(ask_pinned(get(1)).await, "a1", "the pin before the cookie, the cookie in its set");
        assert_eq!(ask_pinned(get(0)).await, "a0", "the pin is to the set, not to a member");
        assert_eq!(set.rig.ask(get(1)).await.text(), "b1", "the same place in the set that is live");
    }
    let turns = [ask_pinned(GET.to_owned()).await, ask_pinned(GET.to_owned()).await];
    assert_ne!(turns[0], turns[1], "without a cookie by turns");
    former.iter().for_each(|target| target.close());
    assert_eq!(ask_pinned(get(1)).await, "b1", "the set is gone: it moves at once, to the same place");
}

#[tokio::test]
async fn by_address_a_client_has_its_member_and_only_those_of_one_that_is_gone_move() {
    let (_apps, addrs) = apps().await;
    let mut set = Set::with(Rig::start(|config| {
        config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
        of_app(config).sticky = Sticky::Address;
    }));
    set.publish(&addrs, Balance::RoundRobin);
    let members = async |set: &Set| {
        let mut members = Vec::new();
        for client in 0..24 {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, client));
            let fields = format!("x-forwarded-for: {ip}\r\ncookie: {COOKIE}=1\r\n");
            let way = WAYS[usize::from(client) % WAYS.len()];
            let (reply, text) = ask(set, way, &fields).await;
            assert_eq!(reply.header("set-cookie"), None);
            assert!(text.ends_with(&format!("{COOKIE}=1")), "no cookie of portok's: {text}");
            members.push(text[..1].to_owned());
        }
        members
    };
    let before = members(&set).await;
    assert_eq!(before, members(&set).await);
    assert!(["a", "b", "c"].iter().all(|name| before.iter().any(|member| member == name)), "{before:?}");
    set.publish(&addrs[..2], Balance::RoundRobin);
    let after = members(&set).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before == after || before == "c"), "{after:?}");
    set.publish(&addrs, Balance::RoundRobin);
    assert_eq!(members(&set).await, before);
    // One that is out is tried by a client of its own as soon as it is due, and is in again.
    let own = before.iter().position(|member| member == "a").unwrap();
    assert!(set.targets[0].put_out(Duration::from_millis(1), set.rig.counters.service()));
    let deadline = tokio::time::Instant::now() + LONG;
    while ask(&set, WAYS[0], &format!("x-forwarded-for: 10.0.0.{own}\r\n")).await.1 != "a" {
        assert!(tokio::time::Instant::now() < deadline, "nobody tries it");
    }
    assert_eq!(members(&set).await, before);
}
