//! Balancers that tell who their client is.

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xcb\0\x71\x07\x0a\0\0\x01\xdc\x04\x01\xbb\x03\0\x01x";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const V1: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n";

fn trusting(spoken: ProxyProtocol) -> impl FnOnce(&mut Config) {
    move |config| {
        config.proxy.proxy_protocol = spoken;
        config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
    }
}

#[tokio::test]
async fn the_client_is_whom_a_trusted_balancer_names() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, trusting(ProxyProtocol::Any));
    let forwarded = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 6.6.6.6\r\n\r\n";
    for (header, client) in [
        (V1.as_bytes(), "203.0.113.7"),
        (V2, "203.0.113.7"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        // In one go, and byte by byte.
        for size in [1000, 1] {
            let mut connection = rig.connect().await;
            for piece in [header, GET.as_bytes()].concat().chunks(size) {
                connection.send(piece).await;
            }
            let reply = connection.reply().await;
            assert!(reply.text().contains(&format!("x-forwarded-for: {client}\r\n")), "{}", reply.text());
            // The balancer is trusted, and its client is not.
            connection.send(forwarded).await;
            let believed = if client == "127.0.0.1" { "6.6.6.6, 127.0.0.1" } else { client };
            let reply = connection.reply().await;
            assert!(reply.text().contains(&format!("x-forwarded-for: {believed}\r\n")), "{}", reply.text());
        }
    }
    let mut connection = rig.connect().await;
    connection.send([V2, b"GET /__status HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await;
    assert_eq!(
        connection.reply().await.text(),
        "admin /__status 127.0.0.1 0",
        "who may administer is the peer"
    );
}

#[tokio::test]
async fn who_may_not_say_it_or_says_it_wrongly_is_cut() {
    let app = Backend::echo().await;
    let cut = async |rig: &Rig, bytes: &[u8]| {
        let mut connection = rig.connect().await;
        connection.send(bytes).await;
        connection.rest().await.is_empty()
    };
    let rig = Rig::serving(&app, trusting(ProxyProtocol::V2));
    for bytes in [GET.as_bytes(), V1.as_bytes(), &V2[..11], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
        if bytes.len() > 11 {
            assert!(cut(&rig, bytes).await, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
    let rig = Rig::serving(&app, trusting(ProxyProtocol::V1));
    for bytes in [V2, GET.as_bytes(), b"PROXY TCP4 x y 1 2\r\n", &[&b"PROXY "[..], &[b'x'; 200]].concat()] {
        assert!(cut(&rig, bytes).await, "{:?}", String::from_utf8_lossy(bytes));
    }
    let rig = Rig::serving(&app, |config| {
        trusting(ProxyProtocol::Any)(config);
        config.proxy.trusted = vec!["10.0.0.1/32".parse().unwrap()];
    });
    assert!(cut(&rig, V2).await && cut(&rig, GET.as_bytes()).await);
    let rig = Rig::serving(&app, |config| {
        trusting(ProxyProtocol::Any)(config);
        config.proxy.header_timeout = Duration::from_millis(50);
    });
    assert!(cut(&rig, b"PROXY TCP4").await, "it does not come to an end");
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn http_2_may_follow() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, trusting(ProxyProtocol::V2));
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(V2).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://a/").body(()).unwrap();
    let answer = send.ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
    let text = answer.into_body().data().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&text).contains("x-forwarded-for: 203.0.113.7\r\n"));
    connection.abort();
}
