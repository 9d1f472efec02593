//! What drives an app, a coordinator or the driver of its targets, is started again after it has
//! ended by a fault. When is decided by [`Restarts`](super::super::restarts::Restarts).
//!
//! Until it is due the processes stay watched by what the fallen coordinator left: what they print
//! is read. Then what it had under way ends, and the new one takes over from the record, as the
//! next daemon would. Where an instance has one app, the daemon is told that it is lost after
//! too many faults: its service manager starts all of it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::super::means::{Managed, Owner};
use super::super::running::{Body, Running};
use super::{Ended, Life, Registry};
use crate::release::records::Former;

/// How long what a lost coordinator left under way may take to end.
const SETTLE: Duration = Duration::from_secs(5);

/// What runs of an app that becomes another kind: what it is to be, and what answers meanwhile. Any
/// other app is present alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Present,
    Former,
}

impl Seat {
    const BOTH: [Self; 2] = [Self::Present, Self::Former];
}

impl Registry {
    /// What drives an app has ended.
    pub(super) fn driver_ended(&mut self, owner: &Owner) {
        let name = self.name_of(owner);
        for seat in Seat::BOTH {
            let Some(running) = self.seated(seat, &name) else { continue };
            let Some(what) = running.body.fallen().filter(|_| !running.restarts.is_down()) else { continue };
            if self.life != Life::Ending {
                self.note_fault(seat, &name, format!("its {what} ended by a fault of portok"));
            }
        }
    }

    fn seats(&mut self, seat: Seat) -> &mut BTreeMap<String, Running> {
        match seat {
            Seat::Present => &mut self.running,
            Seat::Former => &mut self.former,
        }
    }

    /// What is in this seat of an app.
    fn seated(&mut self, seat: Seat, name: &str) -> Option<&mut Running> {
        self.seats(seat).get_mut(name)
    }

    /// All that runs, each with its seat and name.
    fn all_seated(&mut self) -> impl Iterator<Item = (Seat, &String, &mut Running)> {
        let present = self.running.iter_mut().map(|(name, running)| (Seat::Present, name, running));
        present.chain(self.former.iter_mut().map(|(name, running)| (Seat::Former, name, running)))
    }

    /// Decides what becomes of an app that nothing drives.
    fn note_fault(&mut self, seat: Seat, name: &str, why: String) {
        let has_several = self.several().is_some();
        let Some(running) = self.seated(seat, name) else { return };
        let delay = running.restarts.fell(why.clone(), Instant::now());
        if !has_several && running.restarts.are_too_many() {
            tracing::error!(app = name, "{why}, again and again");
            return self.give_up(name);
        }
        let later = if delay.is_zero() { String::new() } else { format!(" {delay:?} later") };
        tracing::error!(app = name, "{why}: it is started again{later}");
        self.publish();
    }

    fn give_up(&mut self, name: &str) {
        if let Some(running) = self.running.get_mut(name) {
            running.restarts.give_up();
        }
        self.lost.send_replace(true);
    }

    /// When the next one is to be started again.
    pub(super) fn next_restart(&self) -> Option<tokio::time::Instant> {
        let all = self.running.values().chain(self.former.values());
        let due = all.filter_map(|running| running.restarts.due()).min();
        due.map(tokio::time::Instant::from_std)
    }

    /// Starts again what is due.
    pub(super) fn start_fallen_again(&mut self) {
        let now = Instant::now();
        let all = self.all_seated();
        let due = all.filter(|(.., running)| running.restarts.due().is_some_and(|due| due <= now));
        for (seat, name) in due.map(|(seat, name, _)| (seat, name.clone())).collect::<Vec<_>>() {
            let owner = self.owner_of(&name);
            let Some(running) = self.seated(seat, &name) else { continue };
            match &running.body {
                Body::Managed(managed) => {
                    running.restarts.settle();
                    let settled = settled(name, managed);
                    self.tasks.spawn(async move {
                        settled.await;
                        Ended::Settled(owner)
                    });
                }
                Body::Targets(_) => self.aim_again(seat, &name),
                Body::Redirect => running.restarts.began(),
            }
        }
    }

    /// What a fallen coordinator had under way has ended.
    pub(super) fn settled(&mut self, owner: &Owner) {
        if self.leaving.get(owner).is_some_and(|leaving| leaving.managed.has_fallen()) {
            // At the daemon's end it is left for the next one, which finds it by its record.
            if self.life != Life::Ending {
                self.stop_fallen(owner);
            }
            return;
        }
        let name = self.name_of(owner);
        let life = self.life;
        for seat in Seat::BOTH {
            let Some(running) = self.seated(seat, &name).filter(|app| app.restarts.is_settling()) else {
                continue;
            };
            match life {
                Life::Moving => self.coordinate_again(seat, &name),
                Life::Still | Life::Ending => running.restarts.hurry(Instant::now()),
            }
        }
    }

    /// Has nothing of fallen coordinators under way any more: what they left is another daemon's to
    /// take over, or a new coordinator's to stop. Returns whose they are.
    pub(super) async fn settle_fallen(&mut self) -> Vec<(Seat, String)> {
        let (mut names, mut all) = (Vec::new(), JoinSet::new());
        for (seat, name, running) in self.all_seated() {
            running.restarts.hurry(Instant::now());
            if let (Body::Managed(managed), Some(_)) = (&running.body, running.restarts.due()) {
                names.push((seat, name.clone()));
                all.spawn(settled(name.clone(), managed));
            }
        }
        while all.join_next().await.is_some() {}
        names
    }

    /// Has coordinators for all apps that have releases, so that what runs of them can be stopped.
    pub(super) async fn drive_fallen(&mut self) {
        for (seat, name) in self.settle_fallen().await {
            self.coordinate_again(seat, &name);
        }
    }

    /// Makes a coordinator in a fallen one's place, which takes its processes over.
    fn coordinate_again(&mut self, seat: Seat, name: &str) {
        let owner = self.owner_of(name);
        let seats = if seat == Seat::Present { &mut self.running } else { &mut self.former };
        let Some(running) = seats.get_mut(name) else { return };
        let Body::Managed(managed) = &mut running.body else { return };
        let begun = self.means.records.open(owner.as_deref()).map_err(|error| error.to_string());
        let begun = begun.and_then(|opened| {
            let (config, route) =
                (running.config.subscribe(), self.means.board.write_again(&running.service));
            let made = self.means.manage(&owner, config, (&running.service, route), opened, None);
            made.map_err(|error| error.to_string())
        });
        match begun {
            Ok((again, prepared)) => {
                *managed = again;
                running.restarts.began();
                self.prepared.push((owner, prepared));
                self.run_prepared();
                self.publish();
            }
            Err(error) => {
                let why = format!("its coordinator cannot be started again: {error}");
                if owner.is_some() {
                    return self.note_fault(seat, name, why);
                }
                tracing::error!(app = name, "{why}");
                self.give_up(name);
            }
        }
    }

    /// Makes another driver for the targets of an app. The former one's serve until those of the
    /// new one do.
    fn aim_again(&mut self, seat: Seat, name: &str) {
        let Some(mut running) = self.seats(seat).remove(name) else { return };
        let recorded = match &running.body {
            Body::Targets(fallen) => Some(fallen.handle.recorded()),
            Body::Managed(_) | Body::Redirect => None,
        };
        let (config, route) = (running.config.subscribe(), self.means.board.write_again(&running.service));
        running.body = Body::Targets(self.drive_set(
            name,
            config,
            (&running.service, route),
            (recorded, Former::Unknown),
        ));
        running.restarts.began();
        self.seats(seat).insert(name.to_owned(), running);
        self.run_prepared();
        self.publish();
    }

    /// Begins to settle what a fallen coordinator has left of an app that is being removed.
    pub(super) fn settle_leaving(&mut self, owner: Owner) {
        let Some(leaving) = self.leaving.get(&owner) else { return };
        let settled = settled(self.name_of(&owner), &leaving.managed);
        self.tasks.spawn(async move {
            settled.await;
            Ended::Settled(owner)
        });
    }

    /// Stops what is left of an app that was removed after its coordinator had fallen.
    fn stop_fallen(&mut self, owner: &Owner) {
        match self.means.records.open(owner.as_deref()) {
            Ok(opened) => {
                self.begin_to_stop(owner.clone(), opened);
                self.run_prepared();
                self.publish();
                self.stop(owner.clone());
            }
            Err(error) => {
                tracing::error!(app = owner, "what runs of it is not stopped: {error}");
                self.leaving.remove(owner);
                self.are_fewer();
            }
        }
    }

    /// The name of the app that owns a record.
    fn name_of(&self, owner: &Owner) -> String {
        owner.clone().unwrap_or_else(|| self.config.name.clone())
    }

    /// Whose the record of an app is.
    fn owner_of(&self, name: &str) -> Owner {
        self.several().is_some().then(|| name.to_owned())
    }
}

/// Lets go what a fallen coordinator had under way, and waits until it has ended.
fn settled(name: String, managed: &Managed) -> impl Future<Output = ()> + Send + 'static {
    let (supervisor, recorded) = (managed.supervisor.clone(), managed.recorded.clone());
    async move {
        supervisor.let_go();
        let ended = async {
            supervisor.idle().await;
            recorded.cancelled().await;
        };
        if tokio::time::timeout(SETTLE, ended).await.is_err() {
            tracing::warn!(app = name, "what it had under way did not end within {SETTLE:?}");
        }
    }
}
