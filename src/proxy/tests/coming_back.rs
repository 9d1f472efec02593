//! A crashed app that comes back: the moment between "held" and "live", looked at without pause.

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;
use crate::proxy::connection::ClientConnection;
use crate::proxy::crowd::Crowd;
use crate::proxy::here::NoTarget;
use crate::proxy::switchboard::switchboard;
use crate::proxy::upstream::pool::Doorbells;
use crate::proxy::worker::{Worker, WorkerParts};

/// How often the app crashes and comes back.
const RECOVERIES: u16 = 20_000;

const READERS: usize = 2;

/// What the looks of one thread came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Looks {
    served: u64,
    refused: u64,
}

/// One data-plane thread whose requests claim a target without pause until `over`.
fn look_without_pause(parts: WorkerParts, looking: &AtomicBool, over: &AtomicBool) -> Looks {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let worker = Worker::start(parts);
        let settings = worker.settings();
        let visit = worker.guests.admit(peer.ip(), &settings).unwrap();
        let client = ClientConnection::new(peer, visit, 0);
        let mut looks = Looks::default();
        while !over.load(Ordering::SeqCst) {
            match worker.here.claim(&client, &settings.app) {
                Ok(_) => looks.served += 1,
                Err(NoTarget::Held) => (),
                Err(NoTarget::Empty) => looks.refused += 1,
            }
            looking.store(true, Ordering::SeqCst);
        }
        looks
    })
}

#[test]
fn no_look_at_an_app_that_is_held_or_live_finds_nothing() {
    let stats = Stats::new(READERS);
    let (switchboard, mut routes) = switchboard();
    let (_config, follow) = watch::channel(Arc::new(config()));
    let bells = Arc::new(Doorbells((0..READERS).map(|_| Notify::new()).collect()));
    let over = AtomicBool::new(false);
    let looking = [const { AtomicBool::new(false) }; READERS];
    routes.hold();
    let looks = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..READERS)
            .map(|lane| {
                let (config, switchboard, stats) = (follow.clone(), switchboard.clone(), stats.clone());
                let (reserved, bells) = (Arc::new(Admins), bells.clone());
                let crowd = Crowd::new();
                let parts = WorkerParts { lane, config, switchboard, stats, reserved, bells, crowd };
                let (looking, over) = (&looking[lane], &over);
                threads.spawn(move || look_without_pause(parts, looking, over))
            })
            .collect();
        while !looking.iter().all(|looking| looking.load(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
        for port in 1..=RECOVERIES {
            let target = target(&stats, "v1", port);
            routes.route(Some(target.clone()));
            routes.hold();
            target.close();
        }
        over.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(looks.iter().all(|looks| looks.refused == 0), "{looks:?}");
    assert!(looks.iter().any(|looks| looks.served > 0), "{looks:?}");
}
