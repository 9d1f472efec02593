//! What an operator has ordered about an app: that its requests wait (a pause), that portok answers
//! all of them (maintenance), that nothing is deployed (a freeze).
//!
//! Owned by whoever drives the app, who carries it out and keeps it in the app's record; it
//! survives the daemon. No I/O; the time is the caller's. A pause ends by itself, and so may a
//! freeze: their ends are moments of the host's clock in the record, and of the daemon's own while
//! it runs.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::moment;
use crate::proxy::{self, Bar};
use crate::wire::{self, Code, ErrorBody, FREEZE_MOST, PAUSE_MOST, Said, rfc3339};

/// The status of a maintenance that says none.
const UNAVAILABLE: u16 = 503;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Requests wait; `None`: as long as one may wait.
    Pause(Option<Duration>),
    /// They go on.
    Resume,
    /// Portok answers all of them; `None`: not any more.
    Maintenance(Option<Page>),
    /// Nothing is deployed or switched; `None`: until a thaw.
    Freeze(Option<Duration>),
    /// Deploys and switches go on.
    Thaw,
}

/// What every request gets in maintenance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The status; `None`: 503.
    pub status: Option<u16>,
    /// The page in HTML.
    pub html: Option<String>,
}

/// The orders in force. In a record it is left out where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Orders {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<Standing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maintenance: Option<Maintenance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freeze: Option<Standing>,
    /// The fingerprint of the edit of `[app]` that waited when a freeze ended by itself: it is not
    /// deployed by itself either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_back: Option<String>,
}

/// A pause or a freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Standing {
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    at: String,
    #[serde(default, with = "moment", skip_serializing_if = "Option::is_none")]
    until: Option<SystemTime>,
    /// When it ends by itself, by the daemon's own clock.
    #[serde(skip)]
    ends: Option<Instant>,
}

/// A maintenance in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Maintenance {
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    at: String,
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<String>,
}

/// The time by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    host: SystemTime,
    own: Instant,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obeyed {
    /// What is now, as a sentence.
    pub message: String,
    /// When it ends by itself.
    pub until: Option<SystemTime>,
}

/// What has just ended by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// The pause.
    pub pause: bool,
    /// The freeze.
    pub freeze: bool,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { host: SystemTime::now(), own: Instant::now() }
    }
}

impl Standing {
    fn new(said: Said, time: Option<Duration>, now: Moment) -> Self {
        let until = time.and_then(|time| now.host.checked_add(time));
        let ends = time.and_then(|time| now.own.checked_add(time));
        Self { by: said.by, note: said.note, at: rfc3339(now.host), until, ends }
    }

    /// As it is taken out of the record. Never longer than `most`, whatever the host's clock says.
    /// `None`: it has ended meanwhile.
    fn taken_up(self, now: Moment, most: Duration) -> Option<Self> {
        let Some(until) = self.until else { return Some(self) };
        let left = until.duration_since(now.host).ok().filter(|left| !left.is_zero())?.min(most);
        Some(Self { until: now.host.checked_add(left), ends: now.own.checked_add(left), ..self })
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// As others see it.
    fn shown(&self) -> wire::Standing {
        let Self { by, note, at, until, .. } = self;
        let (by, note, at, until) = (by.clone(), note.clone(), at.clone(), until.map(rfc3339));
        wire::Standing { by, note, at, until }
    }

    /// By whom, until when and why, behind a word like "paused".
    fn told(&self) -> String {
        let until = self.until.map(|until| format!(" until {}", rfc3339(until))).unwrap_or_default();
        let note = self.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        format!("by {}{until}{note}", self.by)
    }
}

impl Orders {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// When the pause ends by itself.
    pub fn pause_ends(&self) -> Option<SystemTime> {
        self.pause.as_ref()?.until
    }

    /// The orders as a record has them, at the daemon's start.
    #[must_use]
    pub fn taken_up(self, now: Moment) -> Self {
        Self {
            pause: self.pause.and_then(|pause| pause.taken_up(now, PAUSE_MOST)),
            freeze: self.freeze.and_then(|freeze| freeze.taken_up(now, FREEZE_MOST)),
            ..self
        }
    }

    /// Takes one more. `pause` is how long a pause takes that says no time.
    pub fn obey(&mut self, order: Order, said: Said, pause: Duration, now: Moment) -> Obeyed {
        let mut until = None;
        let message = match order {
            Order::Pause(time) => {
                let time = time.unwrap_or(pause).min(PAUSE_MOST);
                let paused = self.pause.insert(Standing::new(said, Some(time), now));
                until = paused.until;
                format!("requests wait: paused {}", paused.told())
            }
            Order::Resume => match self.pause.take() {
                Some(_) => "requests go on".to_owned(),
                None => "requests go on: they were not paused".to_owned(),
            },
            Order::Maintenance(Some(Page { status, html })) => {
                let Said { by, note } = said;
                let (at, status) = (rfc3339(now.host), status.unwrap_or(UNAVAILABLE));
                self.maintenance = Some(Maintenance { by, note, at, status, page: html });
                format!("every request is answered with {status} by portok itself")
            }
            Order::Maintenance(None) => match self.maintenance.take() {
                Some(_) => "requests go to the app again".to_owned(),
                None => "requests go to the app: there was no maintenance".to_owned(),
            },
            Order::Freeze(time) => {
                let frozen = self.freeze.insert(Standing::new(said, time, now));
                until = frozen.until;
                format!("nothing is deployed or switched: frozen {}", frozen.told())
            }
            Order::Thaw => {
                let was_held_back = self.held_back.take().is_some();
                match self.freeze.take() {
                    None if !was_held_back => "deploys go on: they were not frozen".to_owned(),
                    _ => "deploys go on".to_owned(),
                }
            }
        };
        Obeyed { message, until }
    }

    /// When the next one ends by itself.
    pub fn next_end(&self) -> Option<Instant> {
        [&self.pause, &self.freeze].into_iter().flatten().filter_map(|standing| standing.ends).min()
    }

    /// Takes away what has ended by itself.
    pub fn end(&mut self, now: Instant) -> Ended {
        Ended {
            pause: self.pause.take_if(|pause| pause.is_over(now)).is_some(),
            freeze: self.freeze.take_if(|freeze| freeze.is_over(now)).is_some(),
        }
    }

    /// Whether requests wait.
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether nothing is deployed.
    pub fn is_frozen(&self) -> bool {
        self.freeze.is_some()
    }

    /// What is in the way of the app's requests.
    pub fn bar(&self) -> Option<Bar> {
        if let Some(Maintenance { status, page, .. }) = &self.maintenance {
            let page = page.clone().map(Bytes::from);
            return Some(Bar::Maintenance(Arc::new(proxy::Maintenance { status: *status, page })));
        }
        self.pause.as_ref().map(|_| Bar::Pause)
    }

    /// By whom requests are made to wait.
    pub fn paused(&self) -> Option<wire::Standing> {
        self.pause.as_ref().map(Standing::shown)
    }

    /// By whom deploys are stopped.
    pub fn frozen(&self) -> Option<wire::Standing> {
        self.freeze.as_ref().map(Standing::shown)
    }

    /// Refuses what a freeze stops.
    ///
    /// # Errors
    /// `frozen`, with who and why.
    pub fn admits(&self) -> Result<(), ErrorBody> {
        let Some(freeze) = &self.freeze else { return Ok(()) };
        let message = format!("deploys and switches are frozen {} (since {})", freeze.told(), freeze.at);
        Err(ErrorBody::new(Code::Frozen, "Frozen", message)
            .with_hint("portok thaw ends it; a rollback is possible meanwhile"))
    }

    /// The edit with this fingerprint waited when a freeze ended by itself.
    pub fn hold_back(&mut self, fingerprint: String) {
        self.held_back = Some(fingerprint);
    }

    /// Whether an edit of `[app]` is not deployed by itself; `fingerprint` tells which it is.
    pub fn holds_back(&self, fingerprint: impl FnOnce() -> String) -> bool {
        self.is_frozen() || self.held_back.as_ref().is_some_and(|held| *held == fingerprint())
    }

    /// For the log: what is in force at the daemon's start.
    pub fn told(&self) -> Vec<String> {
        let standing = |what: &str, standing: &Option<Standing>| {
            standing.as_ref().map(|standing| format!("{what} {}", standing.told()))
        };
        let maintenance = self.maintenance.as_ref().map(|maintenance| {
            format!("in maintenance by {}, with status {}", maintenance.by, maintenance.status)
        });
        [standing("paused", &self.pause), maintenance, standing("frozen", &self.freeze)]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Refuses a pause of `app` where `hold.on` leaves it out.
///
/// # Errors
/// `bad_request`.
pub fn may_pause(app: &str, is_on: bool) -> Result<(), ErrorBody> {
    if is_on {
        return Ok(());
    }
    let message = format!("app `{app}` cannot be paused: its requests would not wait");
    let hint = "add \"pause\" to hold.on, or: portok maintenance on";
    Err(ErrorBody::new(Code::BadRequest, "Bad request", message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(30);

    fn said() -> Said {
        Said { by: "ann".to_owned(), note: Some("moving house".to_owned()) }
    }

    fn later(now: Moment, by: Duration) -> Moment {
        Moment { host: now.host + by, own: now.own + by }
    }

    /// What a daemon that starts `after` reads.
    fn read_again(orders: &Orders, now: Moment, after: Duration) -> Orders {
        let text = serde_json::to_string(orders).unwrap();
        serde_json::from_str::<Orders>(&text).unwrap().taken_up(later(now, after))
    }

    #[test]
    fn a_pause_ends_by_itself_by_a_resume_and_over_a_restart() {
        let (mut orders, now) = (Orders::default(), Moment::now());
        let obeyed = orders.obey(Order::Pause(None), said(), PAUSE, now);
        assert!(obeyed.message.contains("by ann until ") && obeyed.message.ends_with(": moving house"));
        assert_eq!((orders.bar(), orders.next_end()), (Some(Bar::Pause), Some(now.own + PAUSE)));
        let shown = orders.paused().unwrap();
        assert_eq!((&*shown.by, shown.until), ("ann", Some(rfc3339(now.host + PAUSE))));
        assert_eq!(orders.frozen(), None);
        assert_eq!(orders.end(now.own), Ended::default());
        let read = read_again(&orders, now, Duration::from_secs(10));
        assert!(read.is_paused());
        // The record has milliseconds.
        let left = read.next_end().unwrap() - now.own;
        assert!(left <= PAUSE && left > PAUSE - Duration::from_millis(2), "{left:?}");
        assert!(read_again(&orders, now, PAUSE).is_none());
        assert!(orders.clone().end(now.own + PAUSE).pause);
        orders.obey(Order::Resume, said(), PAUSE, now);
        assert!(orders.is_none());
        let long = orders.obey(Order::Pause(Some(2 * PAUSE_MOST)), said(), PAUSE, now);
        assert_eq!(long.until, Some(now.host + PAUSE_MOST));
    }

    #[test]
    fn a_clock_that_was_put_back_makes_no_pause_longer() {
        let (mut orders, now) = (Orders::default(), Moment::now());
        orders.obey(Order::Pause(Some(PAUSE_MOST)), said(), PAUSE, now);
        let before = Moment { host: now.host - 9 * PAUSE_MOST, own: now.own };
        assert_eq!(orders.taken_up(before).next_end(), Some(now.own + PAUSE_MOST));
    }

    #[test]
    fn maintenance_stands_before_a_pause() {
        let (mut orders, now) = (Orders::default(), Moment::now());
        orders.obey(Order::Pause(None), said(), PAUSE, now);
        let page = Page { status: Some(404), html: Some("<p>soon".to_owned()) };
        orders.obey(Order::Maintenance(Some(page)), said(), PAUSE, now);
        let read = read_again(&orders, now, Duration::from_secs(3600));
        let page = proxy::Maintenance { status: 404, page: Some(Bytes::from_static(b"<p>soon")) };
        assert_eq!(read.bar(), Some(Bar::Maintenance(Arc::new(page))));
        orders.obey(Order::Maintenance(None), said(), PAUSE, now);
        assert_eq!(orders.bar(), Some(Bar::Pause));
    }

    #[test]
    fn an_edit_that_a_freeze_held_back_waits_for_a_thaw_even_after_its_end() {
        let (mut orders, now) = (Orders::default(), Moment::now());
        let edit = || "edit".to_owned();
        assert!(orders.admits().is_ok() && !orders.holds_back(edit));
        orders.obey(Order::Freeze(Some(PAUSE)), said(), PAUSE, now);
        let refusal = orders.admits().unwrap_err();
        assert_eq!(refusal.code, Code::Frozen);
        assert!(refusal.message.contains("ann") && refusal.message.contains("moving house"));
        assert!(orders.holds_back(edit));
        assert!(orders.end(now.own + PAUSE).freeze);
        orders.hold_back(edit());
        assert!(orders.admits().is_ok() && orders.holds_back(edit));
        assert!(!orders.holds_back(|| "a newer one".to_owned()));
        assert!(read_again(&orders, now, PAUSE).holds_back(edit));
        orders.obey(Order::Thaw, said(), PAUSE, now);
        assert!(orders.is_none());
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        let mut orders = Orders::default();
        assert_eq!(serde_json::to_string(&orders).unwrap(), "{}");
        orders.obey(Order::Freeze(None), Said { by: "ann".into(), note: None }, PAUSE, Moment::now());
        let text = serde_json::to_string(&orders).unwrap();
        assert!(!text.contains("null") && orders.next_end().is_none(), "{text}");
        assert_eq!(orders.frozen().unwrap().until, None);
    }
}
