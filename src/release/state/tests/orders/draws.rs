//! What is drawn: events, and the policies under which they happen.

use super::*;
use crate::config::Replicas;

pub(super) fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let weights = [
        (3, Kind::Deploy),
        (1, Kind::Switch),
        (2, Kind::Rollback),
        (1, Kind::Cancel),
        (6, Kind::Spawned),
        (4, Kind::StepStarted),
        (5, Kind::StepEnded),
        (6, Kind::Ready),
        (2, Kind::NotReady),
        (3, Kind::Exited),
        (4, Kind::Gone),
        (3, Kind::Probed),
        (4, Kind::Weighed),
        (6, Kind::Saved),
        (4, Kind::TimerOver),
        (1, Kind::Settings),
        (6, Kind::Load),
        (2, Kind::Wake),
        (1, Kind::Shutdown),
        (1, Kind::Killed),
    ];
    let kinds = weights.map(|(weight, kind)| (weight, Just(kind).boxed())).to_vec();
    prop::collection::vec((prop::strategy::Union::new_weighted(kinds), any::<u8>()), 1..120)
}

pub(super) fn policies() -> impl Strategy<Value = Policy> {
    let recycles = prop::option::of(0u64..4);
    let counts = (1u32..4, 1u32..4, 1u32..6, any::<u8>());
    (any::<[bool; 4]>(), any::<u8>(), counts, recycles).prop_map(
        |([window, standby, give_up, recreate], mix, counts, recycles)| {
            let (threshold, failures, burst, chance) = counts;
            Policy {
                window,
                threshold,
                failures,
                standby,
                replicas: replicas(chance),
                companions: companions(mix),
                max_memory: recycles.map(|_| LARGE - 1),
                recycle_after: Duration::from_millis(7 * recycles.unwrap_or_default()),
                recreate,
                restart: Restart { give_up, burst, ..policy().restart },
            }
        },
    )
}

/// Always as many, or as the load asks for, down to none.
pub(super) fn replicas(chance: u8) -> Replicas {
    let max = 1 + u16::from(chance) % MOST;
    let min = if chance < 128 { max } else { u16::from(chance >> 2) % (max + 1) };
    Replicas { min, busy_at: 2, idle: Duration::from_millis(15), ..Replicas::fixed(max) }
}

/// Some releases have companions: which, depends on the `mix`.
fn companions(mix: u8) -> BTreeMap<String, Vec<Companion>> {
    let [after, before] = [("worker", false), ("clock", true)].map(|(process, before)| {
        let replicas = 1 + u16::from(mix % 2);
        Companion { process: process.into(), replicas, before }
    });
    let all = [vec![after.clone()], vec![], vec![before.clone()], vec![after, before]];
    let of = |release: usize| (format!("v{release}"), all[(release + usize::from(mix)) % all.len()].clone());
    if mix < 64 { BTreeMap::new() } else { (0..130).map(of).collect() }
}
