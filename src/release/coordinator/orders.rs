//! How the coordinator obeys an operator's orders: what they put in the way of requests and
//! deploys, and what follows when they end.

use std::net::SocketAddr;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::Coordinator;
use crate::config::{HoldOn, app_fingerprint};
use crate::proxy::Bar;
use crate::release::message::OrderReply;
use crate::release::orders::{Ended, Moment, Obeyed, Order, may_pause};
use crate::release::record::Record;
use crate::release::refusal::refused;
use crate::release::state::{Origin, Refusal, ReleaseRef, Timer};
use crate::wire::{self, ErrorBody, Said};

impl Coordinator {
    /// What the record says is in force from the beginning, and the requests of an app that was
    /// live wait for it.
    pub(super) fn take_orders_up(&mut self) {
        self.traffic.bar(self.orders.bar());
        for told in self.orders.told() {
            tracing::info!(app = self.config.borrow().name, "{told}, as before");
        }
        let record = self.life.booting().map(|booting| &booting.record);
        let live = record.and_then(|record| record.live.as_ref());
        let returns = live.is_some_and(|release| release.origin == Origin::Managed);
        let replaced = record.is_some_and(Record::makes_room);
        let is_idle = record.is_some_and(|record| record.wanted == Some(0));
        let is_on = |reason| self.config.borrow().hold.is_on(reason);
        let reason = if is_idle { HoldOn::Idle } else { HoldOn::Crash };
        let held = is_on(reason) || replaced && is_on(HoldOn::Recreate);
        if returns && self.traffic.is_empty() && held {
            self.traffic.hold(true);
        }
    }

    /// After the boot: requests wait on only for what is being started.
    pub(super) fn hold_what_returns(&mut self) {
        if self.state.live_run().is_some() || self.state.is_idle() {
            return;
        }
        let is_managed = |release: &ReleaseRef| release.origin == Origin::Managed;
        let comes = matches!(self.state.phase(), wire::Phase::Starting | wire::Phase::Restarting);
        if !(comes && self.state.live_release().is_some_and(is_managed)) {
            self.traffic.unroute();
        }
    }

    /// The coordinator ends: nobody waits for what will not come here any more. A `successor` lets
    /// them wait, or starts what is idle.
    pub(super) fn hold_nobody(&mut self, successor: Option<SocketAddr>) {
        if self.orders.is_paused() || self.state.live_run().is_none() {
            match (successor, self.state.live_release()) {
                (Some(successor), Some(live)) => self.traffic.pass_on(successor, &live.id),
                _ => self.traffic.unroute(),
            }
        }
        // The orders are kept for the next daemon.
        self.traffic.bar(self.orders.bar().filter(|bar| *bar != Bar::Pause));
    }

    pub(super) fn obey(&mut self, order: Order, said: Said) -> Result<OrderReply, ErrorBody> {
        if self.is_stopping() {
            return Err(refused(&Refusal::ShuttingDown));
        }
        let (name, hold) = {
            let config = self.config.borrow();
            (config.name.clone(), config.hold.clone())
        };
        if matches!(order, Order::Pause(_)) {
            may_pause(&name, hold.is_on(HoldOn::Pause))?;
        }
        let thaws = order == Order::Thaw;
        let Obeyed { mut message, until } = self.orders.obey(order, said, hold.max_time, Moment::now());
        if thaws && self.edits.is_pending() {
            message.push_str("; the edit of [app] that waited is deployed now");
        }
        tracing::info!(app = name, "{message}");
        self.orders_changed();
        let (done, kept) = oneshot::channel();
        self.recorder.wait_for_last(done);
        let ordered = wire::Ordered {
            success: true,
            message,
            traffic: self.traffic_now(),
            frozen: self.orders.frozen(),
            until: until.map(wire::rfc3339),
        };
        Ok(OrderReply { ordered, kept })
    }

    /// Ends what ends by itself.
    pub(super) fn end_orders(&mut self) {
        let Ended { pause, freeze } = self.orders.end(Instant::now().into_std());
        let config = self.config.borrow().clone();
        if pause {
            tracing::info!(app = config.name, "requests go on: the time of the pause is over");
        }
        if freeze {
            tracing::info!(app = config.name, "deploys go on: the time of the freeze is over");
            if self.edits.is_pending() {
                self.orders.hold_back(app_fingerprint(&config.app));
            }
        }
        if pause || freeze {
            self.orders_changed();
        }
    }

    /// Puts the orders in force, and keeps them.
    fn orders_changed(&mut self) {
        self.traffic.bar(self.orders.bar());
        if !self.orders.is_paused()
            && let Some((timer, time)) = self.late_window.take()
        {
            self.timers.start(timer, time);
        }
        self.save_again();
        self.publish();
    }

    /// Starts a timer of the machine. A watch window begins when requests do.
    pub(super) fn start_timer(&mut self, timer: Timer, time: Duration) {
        if matches!(timer, Timer::Window(_)) && self.orders.is_paused() {
            self.late_window = Some((timer, time));
        } else {
            self.timers.start(timer, time);
        }
    }

    /// When the watch window ends; while requests wait, if they went on now.
    pub(super) fn window_ends(&self, ticket: u64) -> Option<std::time::SystemTime> {
        match self.waiting_window(ticket) {
            Some(time) => std::time::SystemTime::now().checked_add(time),
            None => self.timers.window_ends(ticket),
        }
    }

    /// How long this watch window is, where it begins when requests go on.
    pub(super) fn waiting_window(&self, ticket: u64) -> Option<Duration> {
        let (timer, time) = self.late_window?;
        (timer == Timer::Window(ticket)).then_some(time)
    }

    /// When the live release's watch window ends, if it begins now where it has to wait.
    pub(super) fn watched_until(&self) -> Option<std::time::SystemTime> {
        let window = self.state.window?;
        match window.waits {
            true => std::time::SystemTime::now().checked_add(self.config.borrow().rollback.window),
            false => self.window_ends(window.ticket),
        }
    }
}
