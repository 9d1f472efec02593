//! A crashed app that comes back: the moment between "held" and "live", looked at without pause.

use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::*;
use crate::proxy::bells::Doorbells;
use crate::proxy::connection::ClientConnection;
use crate::proxy::here::NoClaim;
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
        let visit = worker.guests.admit(peer.ip(), &worker.here.look().settings).unwrap();
        let client = ClientConnection::new(peer, door(), visit);
        let mut looks = Looks::default();
        while !over.load(Ordering::SeqCst) {
            match worker.here.claim(&worker.here.look(), &client, None) {
                Ok(_) => looks.served += 1,
                Err(NoClaim::Near) => (),
                Err(NoClaim::Empty | NoClaim::Held | NoClaim::Maintenance(_) | NoClaim::Trial(_)) => {
                    looks.refused += 1
                }
            }
            looking.store(true, Ordering::SeqCst);
        }
        looks
    })
}

#[test]
fn no_look_at_an_app_that_is_held_or_live_finds_nothing() {
    let counters = Counters::new(READERS);
    let (board, mut routes) = Board::new(Arc::new(config()), counters.service().clone());
    let bells = Arc::new(Doorbells((0..READERS).map(|_| Notify::new()).collect()));
    let over = AtomicBool::new(false);
    let looking = [const { AtomicBool::new(false) }; READERS];
    routes.set(Now::Near);
    let looks = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..READERS)
            .map(|lane| {
                let (board, counters, bells) = (board.clone(), counters.clone(), bells.clone());
                let reserved = Arc::new(Admins);
                let parts = WorkerParts { lane, board, counters, reserved, bells };
                let (looking, over) = (&looking[lane], &over);
                threads.spawn(move || look_without_pause(parts, looking, over))
            })
            .collect();
        while !looking.iter().all(|looking| looking.load(Ordering::SeqCst)) {
            std::thread::yield_now();
        }
        for port in 1..=RECOVERIES {
            let target = target(&counters, "v1", port);
            routes.set(Now::One(target.clone()));
            routes.set(Now::Near);
            target.close();
        }
        over.store(true, Ordering::SeqCst);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(looks.iter().all(|looks| looks.refused == 0), "{looks:?}");
    assert!(looks.iter().any(|looks| looks.served > 0), "{looks:?}");
}
