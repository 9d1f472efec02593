//! Who gives an order: what the request says, else what is known of its peer.

use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Peer;
use crate::wire::Said;

/// How long the user database may take to name a user.
const NAME_WITHIN: Duration = Duration::from_secs(2);

/// `said`, with somebody in it: a user's name where the request came over the unix socket, else the
/// peer's address.
pub(super) async fn by_somebody(said: Said, peer: &Peer) -> Said {
    if !said.by.is_empty() {
        return said;
    }
    let by = match peer {
        Peer::Tcp { peer, .. } => peer.ip().to_canonical().to_string(),
        Peer::Unix { uid, .. } => {
            let uid = Uid::from_raw(*uid);
            // It may be asked of another host.
            let found = timeout(NAME_WITHIN, spawn_blocking(move || User::from_uid(uid))).await;
            match found {
                Ok(Ok(Ok(Some(user)))) => user.name,
                _ => format!("uid {uid}"),
            }
        }
    };
    Said { by, ..said }
}
