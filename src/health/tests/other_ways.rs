//! Probes that ask otherwise than by a path.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};

use super::{plain_probe, within};
use crate::health::{Ask, Probe};
use crate::wire::ProbeReport;

fn probe(addr: std::net::SocketAddr, ask: Ask) -> Probe {
    Probe { ask, host: "app.test".into(), ..plain_probe(addr) }
}

#[tokio::test]
async fn a_connection_that_is_accepted_is_healthy() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let asked = probe(listener.local_addr().unwrap(), Ask::Connect);
    let report = within(asked.ask()).await.unwrap();
    assert!(report.healthy && report.error.is_none() && report.status.is_none(), "{report:?}");
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let refused = within(probe(socket.local_addr().unwrap(), Ask::Connect).ask()).await.unwrap();
    assert_eq!((refused.healthy, refused.error.as_deref()), (false, Some("connection refused")));
}

/// What a server of gRPC does with the question.
#[derive(Clone, Copy)]
enum Server {
    /// Answers with this message, and `grpc-status: 0` behind it.
    Message(&'static [u8]),
    /// Ends with this status, without a message.
    Status(&'static str),
    /// Is no server of gRPC.
    Http(u16),
    Resets,
}

/// Asks a server about `service`. Returns the question as it came, too.
async fn ask(server: Server, service: &str) -> (ProbeReport, http::request::Parts, Bytes) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let asked = probe(listener.local_addr().unwrap(), Ask::Grpc(service.to_owned()));
    let serving = tokio::spawn(async move {
        let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let (head, mut body) = request.into_parts();
        let talk = async move {
            let mut question = Vec::new();
            while let Some(data) = body.data().await {
                question.extend_from_slice(&data.unwrap());
            }
            let fields = |status| {
                let mut fields = HeaderMap::new();
                fields.insert("grpc-status", HeaderValue::from_static(status));
                fields
            };
            let mut response = Response::new(());
            match server {
                Server::Message(message) => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream.send_data(Bytes::from_static(message), false).unwrap();
                    stream.send_trailers(fields("0")).unwrap();
                }
                Server::Status(status) => {
                    *response.headers_mut() = fields(status);
                    respond.send_response(response, true).unwrap();
                }
                Server::Http(status) => {
                    *response.status_mut() = status.try_into().unwrap();
                    respond.send_response(response, true).unwrap();
                }
                Server::Resets => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
            question
        };
        let talk = tokio::spawn(talk);
        while connection.accept().await.is_some() {}
        (head, talk.await.unwrap())
    });
    let report = within(asked.ask()).await.unwrap();
    let (head, question) = within(serving).await.unwrap();
    (report, head, question.into())
}

#[tokio::test]
async fn the_health_service_of_grpc_is_asked_about_the_service() {
    let (report, head, question) = ask(Server::Message(b"\0\0\0\0\x02\x08\x01"), "a.B").await;
    assert!(report.healthy && report.error.is_none(), "{report:?}");
    assert!(report.latency_ms > 0.0);
    assert_eq!(&question[..], b"\0\0\0\0\x05\x0a\x03a.B");
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(head.uri.authority().map(http::uri::Authority::as_str), Some("app.test"));
    for (name, value) in
        [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "30000m")]
    {
        assert_eq!(head.headers[name], value);
    }
    let (_, _, question) = ask(Server::Message(b"\0\0\0\0\x02\x08\x01"), "").await;
    assert_eq!(&question[..], b"\0\0\0\0\0");
}

#[tokio::test]
async fn what_is_not_serving_is_not_healthy_and_says_why() {
    for (server, status, said) in [
        (Server::Message(b"\0\0\0\0\x02\x08\x02"), None, "grpc.health.v1 about a.B is NOT_SERVING"),
        (Server::Status("5"), None, "NOT_FOUND (5)"),
        (Server::Status("12"), None, "UNIMPLEMENTED (12)"),
        (Server::Http(404), Some(404), "status 404"),
        (Server::Resets, None, "the app ended the exchange"),
    ] {
        let (report, ..) = ask(server, "a.B").await;
        assert_eq!((report.healthy, report.status), (false, status), "{report:?}");
        let complaint = report.complaint().unwrap();
        assert!(complaint.contains(said), "{complaint}");
    }
}

#[tokio::test]
async fn a_server_of_http1_is_not_one_of_grpc() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let asked = probe(listener.local_addr().unwrap(), Ask::Grpc(String::new()));
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        super::read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    });
    let report = within(asked.ask()).await.unwrap();
    assert!(report.error.as_ref().is_some_and(|error| error.contains("not HTTP/2")), "{report:?}");
    drop(serving);
}

#[tokio::test]
async fn an_app_of_http2_is_asked_for_its_path_over_http2() {
    for (status, said) in
        [(200, None), (204, None), (302, Some("status 302 to /login")), (500, Some("status 500"))]
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let asked = probe(listener.local_addr().unwrap(), Ask::GetOverHttp2("/up?x=1".to_owned()));
        let serving = tokio::spawn(async move {
            let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let mut response = Response::builder().status(status);
            if status == 302 {
                response = response.header("location", "/login");
            }
            let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"db is down"), true).unwrap();
            while connection.accept().await.is_some() {}
            request.into_parts().0
        });
        let report = within(asked.ask()).await.unwrap();
        let head = within(serving).await.unwrap();
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("GET", "http://app.test/up?x=1"));
        assert_eq!((report.healthy, report.complaint().as_deref()), (said.is_none(), said));
        let body = said.map(|_| "db is down");
        assert_eq!(report.body.as_deref(), body);
    }
}
