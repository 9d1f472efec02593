//! `bench-pingora PORT BACKEND THREADS`: forwards everything to one backend, with the fields that portok adds.

use async_trait::async_trait;
use pingora_core::Result;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

struct Forward {
    backend: u16,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(("127.0.0.1", self.backend), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if let Some(client) = session.client_addr().and_then(|addr| addr.as_inet()) {
            request.insert_header("x-forwarded-for", client.ip().to_string())?;
        }
        request.insert_header("x-forwarded-proto", "http")?;
        if let Some(host) = request.headers.get("host").cloned() {
            request.insert_header("x-forwarded-host", host)?;
        }
        Ok(())
    }
}

fn main() {
    let numbers: Vec<u16> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [port, backend, threads] = numbers[..] else {
        eprintln!("bench-pingora PORT BACKEND THREADS");
        std::process::exit(2);
    };
    let conf = ServerConf { threads: threads.into(), upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Forward { backend });
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);
    server.run_forever();
}
