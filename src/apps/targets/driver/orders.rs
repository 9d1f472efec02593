//! How an app with targets obeys an operator's orders, which its record keeps.

use tokio::time::Instant;

use super::{Standing, TargetSet, busy, going_down, held};
use crate::config::HoldOn;
use crate::proxy::Bar;
use crate::release::orders::{Ended, Moment, Obeyed, Order, may_pause};
use crate::wire::{self, Code, ErrorBody, Said};

impl TargetSet {
    /// What the record says is in force from the beginning.
    pub(super) fn take_orders_up(&mut self) {
        self.record.orders = std::mem::take(&mut self.record.orders).taken_up(Moment::now());
        for told in self.record.orders.told() {
            tracing::info!(app = self.config.name, "{told}, as before");
        }
        self.publisher.bar(self.record.orders.bar());
    }

    /// Whether anything may be asked for now.
    pub(super) fn may_change(&self) -> Result<(), ErrorBody> {
        match self.standing {
            Standing::Running => Ok(()),
            Standing::Frozen => Err(busy()),
            Standing::Stopping => Err(going_down()),
            Standing::Removed { .. } => {
                let message = format!("app `{}` is being removed", self.config.name);
                Err(ErrorBody::new(Code::NoSuchApp, "No such app", message))
            }
        }
    }

    /// Whether a hand-over to another daemon loses no request.
    pub(super) fn holds_nothing(&self) -> Result<(), ErrorBody> {
        match self.publisher.waiting() {
            0 => Ok(()),
            waiting => Err(held(&self.config.name, waiting)),
        }
    }

    /// Writes the record and stands still.
    pub(super) async fn freeze(&mut self, interrupt: bool) -> Result<(), ErrorBody> {
        match self.standing {
            Standing::Stopping => return Err(going_down()),
            // There is nothing to hand over: its requests end where they are.
            Standing::Removed { .. } => return Ok(()),
            Standing::Running | Standing::Frozen => (),
        }
        if !interrupt {
            self.holds_nothing()?;
        }
        if self.state_error.is_some() {
            self.write().await;
            if let Some(error) = &self.state_error {
                return Err(ErrorBody::new(Code::StateUnwritable, "State not written", error.clone()));
            }
        }
        self.standing = Standing::Frozen;
        Ok(())
    }

    pub(super) async fn obey(&mut self, order: Order, said: Said) -> Result<wire::Ordered, ErrorBody> {
        self.may_change()?;
        let hold = &self.config.hold;
        if matches!(order, Order::Pause(_)) {
            may_pause(&self.config.name, hold.is_on(HoldOn::Pause))?;
        }
        let Obeyed { mut message, until } =
            self.record.orders.obey(order, said, hold.max_time, Moment::now());
        tracing::info!(app = self.config.name, "{message}");
        self.publisher.bar(self.record.orders.bar());
        self.write().await;
        if let Some(error) = &self.state_error {
            message.push_str(&format!("; it is not kept over a restart: {error}"));
        }
        Ok(wire::Ordered {
            success: true,
            message,
            traffic: self.publisher.traffic(),
            frozen: self.record.orders.frozen(),
            until: until.map(wire::rfc3339),
        })
    }

    /// Ends what ends by itself.
    pub(super) async fn end_orders(&mut self) {
        let ended = self.record.orders.end(Instant::now().into_std());
        if ended == Ended::default() {
            return;
        }
        if ended.pause {
            tracing::info!(app = self.config.name, "requests go on: the time of the pause is over");
        }
        if ended.freeze {
            tracing::info!(app = self.config.name, "switches go on: the time of the freeze is over");
        }
        self.publisher.bar(self.record.orders.bar());
        self.write().await;
    }

    /// The driver ends: nobody waits for what will not come here any more. The orders are kept for
    /// the next daemon.
    pub(super) fn hold_nobody(&mut self) {
        if self.record.orders.is_paused() {
            self.publisher.publish(&[], &self.config, || None);
        }
        self.publisher.bar(self.record.orders.bar().filter(|bar| *bar != Bar::Pause));
    }
}
