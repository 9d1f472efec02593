//! Which ways of asking an app for its health go together: by a path, by a connection alone
//! (`health.tcp`), or by the health service of gRPC (`health.grpc`). Pure.

use super::Health;
use super::read::Reader;

const PATH: &str = "health.path";
const HOST: &str = "health.host";
const TCP: &str = "health.tcp";
const GRPC: &str = "health.grpc";

impl Health {
    /// The key that says what is asked.
    pub(super) fn key(&self) -> &'static str {
        match (self.tcp, &self.grpc) {
            (true, _) => TCP,
            (false, Some(_)) => GRPC,
            (false, None) => PATH,
        }
    }
}

/// Rejects what does not go together. What is set here goes before another way that stands for
/// every app. Returns whether it is set here what is asked.
pub(super) fn fits(r: &mut Reader<'_>, health: &mut Health) -> bool {
    let (path, grpc, tcp) = (r.is_set(PATH), r.is_set(GRPC), r.is_set(TCP));
    health.tcp &= tcp || !(path || grpc);
    if path || tcp && health.tcp {
        health.grpc.take_if(|_| !grpc);
    }
    if health.tcp && grpc {
        let tcp = r.called(TCP);
        r.reject(GRPC, &format!("nothing, because {tcp} is set too: an app is asked in one way"));
    }
    let (useless, why) = match health.key() {
        TCP => (&[PATH, HOST][..], "a connection that is accepted is healthy, and nothing is asked"),
        GRPC => (&[PATH][..], "grpc.health.v1 is asked instead"),
        _ => (&[][..], ""),
    };
    for key in useless.iter().filter(|key| r.is_set(key)).collect::<Vec<_>>() {
        let called = r.called(health.key());
        r.reject(key, &format!("nothing, because {called} is set too: {why}"));
    }
    path || grpc || tcp && health.tcp
}
