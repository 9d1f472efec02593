//! The short way of plain requests and hyper's: nobody can tell from a request or an answer which
//! of the two it went.

use super::*;

/// Moves a connection over to hyper, where it stays.
const NOT_PLAIN: &str = "POST /first HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx";

/// What the app answers, by the path that it was asked for.
fn answer_to(path: &str) -> String {
    let long = "y".repeat(2 << 20);
    match path {
        "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into(),
        "/long" => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}", long.len()),
        "/longchunk" => format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
            long.len()
        ),
        "/fields" => "HTTP/1.1 203 Mine\r\nSet-Cookie: a\r\nset-cookie: b\r\nDate: today\r\nConnection: X-Own\r\nx-own: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\ncontent-length: 2\r\nServer: me\r\n\r\nok".into(),
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\netag: x\r\n\r\n".into(),
        "/empty" => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
        "/interim" => format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}"),
        "/noreason" => "HTTP/1.1 299\r\ncontent-length: 0\r\n\r\n".into(),
        "/invalid" => "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok".into(),
        "/switch" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n".into(),
        _ => OK.into(),
    }
}

async fn app() -> Backend {
    Backend::start(|mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let mut answer = answer_to(path);
            if request.starts_with("HEAD ") {
                let last = answer.rfind("HTTP/1.1 ").unwrap();
                answer.truncate(last + answer[last..].find("\r\n\r\n").unwrap() + 4);
            }
            connection.send(answer).await;
        }
    })
    .await
}

/// A head whose lines of different names may stand in any order.
fn sorted(head: &str) -> Vec<String> {
    let mut lines: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.sort_by_key(|line| line.split(':').next().unwrap().to_owned());
    lines.retain(|line| !line.starts_with("date: ") || line == "date: today");
    [vec![head.lines().next().unwrap().to_owned()], lines].concat()
}

/// The client's answer and what the app was asked, behind `before`.
async fn exchanged(before: Option<&str>, request: &str) -> (Vec<String>, Vec<u8>, Vec<String>) {
    let app = app().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    if let Some(before) = before {
        client.send(before).await;
        assert_eq!(client.reply().await.status(), 200);
    }
    client.send(request).await;
    let reply =
        if request.starts_with("HEAD ") { client.reply_to_head().await } else { client.reply().await };
    if request.contains("close") {
        assert!(client.is_closed().await, "{request}");
        assert_eq!(reply.header("connection"), Some("close"), "{request}");
    }
    let asked = app.seen().concat();
    let asked = asked
        .strip_prefix("POST /first")
        .map_or(asked.as_str(), |rest| rest.split_once("\r\n\r\nx").unwrap().1);
    let chunked = reply.header("transfer-encoding").is_some();
    (sorted(&reply.head), if chunked { joined(&reply.body) } else { reply.body }, sorted(asked))
}

/// A body without its chunks' framing: where a body is cut is nobody's business.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|end| end == b"\r\n").unwrap();
        let size = usize::from_str_radix(str::from_utf8(&chunks[..end]).unwrap(), 16).unwrap();
        let data = &chunks[end + 2..];
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&data[..size]);
        chunks = data[size..].strip_prefix(b"\r\n").unwrap();
    }
}

#[tokio::test]
async fn both_ways_send_and_answer_the_same() {
    let paths = [
        "/",
        "/chunked",
        "/long",
        "/longchunk",
        "/fields",
        "/204",
        "/304",
        "/empty",
        "/interim",
        "/noreason",
        "/invalid",
        "/switch",
    ];
    let gets = paths.iter().flat_map(|path| [format!("GET {path}"), format!("HEAD {path}")]);
    let mut requests: Vec<_> = gets.map(|line| format!("{line} HTTP/1.1\r\nHost: a:81\r\n\r\n")).collect();
    for fields in [
        "Connection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n",
        "Connection: close\r\n",
        "Cookie: a=b\r\nAccept: */*\r\nCOOKIE: c\r\nx-empty:\r\nX-Tab: a\tb\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n",
        "Date: then\r\nx-latin: \u{fc}\r\n",
    ] {
        requests.push(format!("GET /fields?a=%2F;b HTTP/1.1\r\n{fields}host: a\r\n\r\n"));
    }
    for request in requests {
        let (plain, hyper) = (exchanged(None, &request).await, exchanged(Some(NOT_PLAIN), &request).await);
        assert_eq!((plain.0, plain.2), (hyper.0, hyper.2), "{request}");
        assert!(plain.1 == hyper.1, "{request}: bodies of {} and {} bytes", plain.1.len(), hyper.1.len());
    }
}

/// Requests of both kinds one behind the other, cut in two anywhere: none is lost, doubled or mixed
/// up.
#[tokio::test]
async fn a_connection_goes_over_to_hyper_at_any_byte() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let requests = [
        "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "HEAD /2 HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nGET /",
        "GET /4 HTTP/1.1\r\nhost: a\r\n\r\n",
        "PUT /5 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "GET /6 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ];
    let all = requests.concat();
    for cut in 1..all.len() {
        let mut client = rig.connect().await;
        client.send(&all[..cut]).await;
        // The answers to what was whole say that the first part was read alone.
        let is_whole = |count: &usize| requests[..*count].concat().len() <= cut;
        let whole = (1..requests.len()).take_while(is_whole).count();
        for n in 0..whole {
            check(&mut client, n).await;
        }
        client.send(&all[cut..]).await;
        for n in whole..requests.len() {
            check(&mut client, n).await;
        }
        assert!(client.is_closed().await && client.buf.is_empty(), "cut at {cut}");
    }
    let answered = (all.len() - 1) * requests.len();
    assert_eq!(rig.counters.snapshot().total_requests, answered as u64);
}

/// Reads the answer to request `n`.
async fn check(client: &mut Client, n: usize) {
    if n == 1 {
        assert_eq!(client.reply_to_head().await.status(), 200);
        return;
    }
    let reply = client.reply().await;
    let methods = ["GET", "HEAD", "POST", "GET", "PUT", "GET"];
    assert!(reply.text().starts_with(&format!("{} /{} HTTP/1.1\r\n", methods[n], n + 1)), "{}", reply.text());
}
