//! The data plane alone, with as many apps behind one port as are asked for: what a request costs
//! that is routed by its host. `contrib/bench/instructions` measures it.
//!
//! `routed APPS PORT` serves app `N` at the host `N.test`, for N from 1 to APPS, and the last one at
//! `bench.test`; all of them are the app at PORT. It says on standard error where it listens, and
//! ends at SIGTERM.

use std::error::Error;
use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use portok::config::{self, Config, Sources};
use portok::proxy::{
    self, At, Board, Counters, Destination, ListenerId, Now, Plane, Reserved, ReservedBody, Route, Target,
};
use tokio::signal::unix::{SignalKind, signal};

/// There is no admin API.
struct Nobody;

impl Reserved for Nobody {
    fn answer(
        &self,
        _: ListenerId,
        _: SocketAddr,
        _: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>> {
        Box::pin(async { Response::new(Empty::new().map_err(|never| match never {}).boxed()) })
    }
}

/// The configuration of a daemon whose file says next to nothing.
fn configuration() -> Result<Config, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("routed.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\n[admin]\npublic = false\n[proxy]\nthreads = 1\n")?;
    let sources = Sources { file: Some(file), ..Sources::default() };
    config::load(&sources).map_err(|errors| errors.problems.join("; ").into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [apps, port] = &words[..] else { return Err("routed APPS PORT".into()) };
    let (apps, port): (u32, u16) = (apps.parse()?, port.parse()?);
    let config = Arc::new(configuration()?);
    let counters = Counters::new(config.proxy.threads);
    let (board, _own) = Board::new(config.clone(), counters.service().clone());
    let (mut routes, mut writers) = (Vec::new(), Vec::new());
    for number in 1..=apps {
        let (service, mut writer) = board.add(config.app.clone(), &counters);
        let release = service.counters().release("v1");
        writer.set(Now::One(Target::new((Ipv4Addr::LOCALHOST, port).into(), release)));
        writers.push(writer);
        let host = if number == apps { "bench.test".to_owned() } else { format!("{number}.test") };
        let at = At::Instance { hosts: host.parse()?, path: "/".into() };
        routes.push(Route { at, to: Destination::pass(service) });
    }
    board.route(routes);
    let mut end = signal(SignalKind::terminate())?;
    let listener = proxy::bind(config.listen[0])?;
    let (id, address) = (ListenerId::Instance(config.listen[0]), listener.local_addr()?);
    let plane = Plane::start(vec![(id, listener)], board, counters, Arc::new(Nobody))?;
    writeln!(std::io::stderr(), "listening on {address} with {apps} apps; the live release serves")?;
    end.recv().await;
    plane.shut_down().await;
    Ok(())
}
