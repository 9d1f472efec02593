//! Clients that stay with one of several targets: through edits, a death and a return of others and
//! of their own.

use std::net::Ipv4Addr;

use super::targets::wait_for_serving;
use super::{edge, put_text, reload};
use crate::harness::app::Unmanaged;
use crate::harness::http::{Answer, Conn};
use crate::harness::{Daemon, World, wait_until};

/// Asks over a connection of its own; the answer's text is the request as the app got it. `cookie`:
/// the `Cookie` field that the client sends.
#[track_caller]
fn ask(daemon: &Daemon<'_>, path: &str, cookie: Option<&str>) -> Answer {
    let mut conn = Conn::tcp(daemon.addr).expect("the daemon listens");
    let own = [("host", "a"), ("x-echo", "1")];
    let fields: Vec<_> = own.into_iter().chain(cookie.map(|cookie| ("cookie", cookie))).collect();
    conn.request("GET", path, &fields, None).expect("an answer").expect(200)
}

/// The cookie that an answer sets, as a client sends it back.
fn cookie_of(answer: &Answer) -> Option<String> {
    let value = answer.header("set-cookie")?;
    let (cookie, attributes) = value.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
    Some(cookie.to_owned())
}

fn list(world: &World, name: &str, path: &str, ports: &[u16]) {
    let list: Vec<_> = ports.iter().map(|port| format!("\"{}:{port}\"", Ipv4Addr::LOCALHOST)).collect();
    // On a busy machine a target may take long to answer a probe.
    let rest = "sticky = \"cookie\"\nhealth.interval = \"50ms\"\nhealth.timeout = \"50s\"\ndrain.period = \"200ms\"\n";
    let routes = format!("hosts = [\"*\"]\npaths = [\"{path}\"]\n");
    put_text(world, name, &format!("{routes}targets = [{}]\n{rest}", list.join(", ")));
}

#[test]
fn a_client_keeps_its_target_through_edits_a_restart_and_the_death_of_others() {
    let world = World::new();
    let mut programs: Vec<Unmanaged> =
        ["one", "two", "three"].iter().map(|version| world.app(version).start_unmanaged()).collect();
    let [one, two, three] = [programs[0].port, programs[1].port, programs[2].port];
    let conf = edge(&world);
    list(&world, "shop", "/", &[one, two]);
    let daemon = world.start(&conf);
    wait_for_serving(&daemon, &[one, two]);
    // A client's polls, each over a connection of its own, stay with the first one's target.
    let first = ask(&daemon, "/", None);
    let (own, cookie) = (first.version().to_owned(), cookie_of(&first).expect("a cookie"));
    assert!(cookie.starts_with("portok_sticky_shop="), "{cookie}");
    let stays = |daemon: &Daemon<'_>, what: &str| {
        for _ in 0..12 {
            let answer = ask(daemon, "/", Some(&format!("a=1; {cookie}")));
            assert_eq!((answer.version(), cookie_of(&answer)), (&*own, None), "{what}");
            let got = answer.text();
            assert!(got.contains("cookie: a=1\r\n") && !got.contains("portok_sticky"), "{got}");
        }
    };
    stays(&daemon, "at first");
    let (own_port, other_port) = if own == "one" { (one, two) } else { (two, one) };
    for ports in [&[other_port, three, own_port][..], &[own_port], &[three, own_port]] {
        list(&world, "shop", "/", ports);
        reload(&daemon);
        wait_for_serving(&daemon, ports);
        stays(&daemon, &format!("{ports:?}"));
    }
    daemon.terminate();
    let daemon = world.start(&conf);
    wait_for_serving(&daemon, &[three, own_port]);
    stays(&daemon, "after a restart");
    programs[2].kill();
    stays(&daemon, "another is gone");
    wait_for_serving(&daemon, &[own_port]);
    stays(&daemon, "another is out");
    // Its own goes: the next request gets another, and stays there when the former is back.
    list(&world, "shop", "/", &[own_port, other_port]);
    reload(&daemon);
    wait_for_serving(&daemon, &[own_port, other_port]);
    programs.iter_mut().find(|program| program.port == own_port).unwrap().kill();
    let moved = ask(&daemon, "/", Some(&cookie));
    let next = cookie_of(&moved).expect("another cookie");
    assert!(moved.version() != own && next != cookie, "{moved:?}");
    wait_for_serving(&daemon, &[other_port]);
    let answer = ask(&daemon, "/", Some(&next));
    assert_eq!((answer.version(), cookie_of(&answer)), (moved.version(), None));
    daemon.terminate();
}

#[test]
fn two_apps_on_one_host_leave_each_others_cookies_alone() {
    let world = World::new();
    let programs = ["a1", "a2", "b1", "b2"].map(|version| world.app(version).start_unmanaged());
    let port = |at: usize| programs[at].port;
    let conf = edge(&world);
    list(&world, "a", "/a", &[port(0), port(1)]);
    list(&world, "b", "/b", &[port(2), port(3)]);
    let daemon = world.start(&conf);
    let cookie = |path: &str| {
        let answer = wait_until(
            path,
            || daemon.log(),
            || {
                let mut conn = Conn::tcp(daemon.addr).expect("the daemon listens");
                conn.request("GET", path, &[("host", "a")], None).ok().filter(|answer| answer.status() == 200)
            },
        );
        (answer.version().to_owned(), cookie_of(&answer).expect("a cookie"))
    };
    let ((in_a, of_a), (in_b, of_b)) = (cookie("/a"), cookie("/b"));
    assert!(of_a.starts_with("portok_sticky_a=") && of_b.starts_with("portok_sticky_b="), "{of_a} {of_b}");
    let both = format!("{of_a}; {of_b}");
    for _ in 0..8 {
        for (path, own, others) in [("/a", &in_a, &of_b), ("/b", &in_b, &of_a)] {
            let answer = ask(&daemon, path, Some(&both));
            assert_eq!((answer.version(), cookie_of(&answer)), (own.as_str(), None));
            assert!(answer.text().contains(&format!("cookie: {others}\r\n")), "{}", answer.text());
        }
    }
    daemon.terminate();
}
