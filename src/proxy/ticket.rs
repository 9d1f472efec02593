//! One request in the counters, from its head to the last byte of its answer or the end of its
//! tunnel.
//!
//! State: owned by the request, later by its answer's body or its tunnel. What a dropped [`Ticket`]
//! did not [`finish`](Ticket::finish) leaves the gauge of requests under way, but is not measured.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header};

use super::address::Scheme;
use super::board::Service;
use super::clock;
use super::crowd::{Guest, Limit, Stay};
use super::extras::{self, Extras};
use super::fault::Fault;
use super::headers;
use super::here::ServiceHere;
use super::sticky::Wish;
use super::target::Target;
use super::tiers::{Place, Quota};
use super::upstream::pool::LocalTarget;
use crate::http1::fields;

/// One request in the counters; ends when it is dropped.
pub(super) struct Ticket {
    /// The service that it asks.
    service: Rc<ServiceHere>,
    /// `None`: not measured (`proxy.fast_path`).
    started: Option<Instant>,
    /// Its answer was given whole. A tunnel, or a client that went away, took no measured time.
    finished: Cell<bool>,
    /// `None`: not admitted yet.
    stay: Option<Stay>,
    /// What only some configurations want of it.
    extras: Option<Box<Extras>>,
}

impl Ticket {
    /// Counts a request of `service` that has begun.
    pub(super) fn new(service: Rc<ServiceHere>, extras: Option<Box<Extras>>) -> Self {
        let fast = service.settings.config.proxy.fast_path;
        let second = (!fast).then(|| clock::uptime() / 1_000);
        if service.counts().begin(second) {
            service.counters.sample_inflight();
        }
        let started = (!fast).then(Instant::now);
        Self { service, started, finished: Cell::new(false), stay: None, extras }
    }

    /// The name of its client's tier, if the service has tiers.
    pub(super) fn tier(&self) -> Option<&str> {
        self.extras()?.place().map(Place::tier)
    }

    /// The service that it asks.
    pub(super) fn service(&self) -> &Arc<Service> {
        self.service.service()
    }

    /// What only some configurations want of it; mostly nothing.
    pub(super) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Bytes of its answer's body go to the client.
    pub(super) fn passed_out(&self, bytes: usize) {
        if let Some(extras) = &self.extras {
            extras.passed(0, bytes as u64);
        }
    }

    /// Counts it for its client's address, unless that has too many under way, and among the
    /// requests of its client, unless those are too many.
    pub(super) fn admit(&mut self, guest: Rc<Guest>) -> Result<(), Fault> {
        let (stay, number) = Stay::begin(guest);
        if number > self.service.settings.admitted_at_once {
            self.look_closer(stay, number)
        } else {
            self.stay = Some(stay);
            Ok(())
        }
    }

    /// Admits or refuses it, which is one of `number` of its address.
    #[inline(never)]
    fn look_closer(&mut self, stay: Stay, number: usize) -> Result<(), Fault> {
        if number > self.service.settings.requests_per_address {
            self.one_too_many(&stay)?;
        }
        self.stay = Some(stay);
        let Some(place) = self.extras.as_deref_mut().and_then(Extras::place_mut) else { return Ok(()) };
        place.admit(self.service.service().clients()).map_err(|quota| Fault::TierLimit(Box::new(quota)))
    }

    /// Refuses it. A trusted peer that names no client stands for many, and is let through.
    #[cold]
    fn one_too_many(&self, stay: &Stay) -> Result<(), Fault> {
        let (ip, settings) = (stay.guest().ip(), &self.service.settings);
        if headers::is_trusted(ip, &settings.config.proxy.trusted) {
            return Ok(());
        }
        let most = settings.requests_per_address;
        self.service.crowd().warn_full(Limit::RequestsPerAddress, Some(most), Some(ip));
        Err(Fault::TooManyAtOnce)
    }

    /// Adds what portok tells the client to `lines`, the head of the answer of `local`: see
    /// [`Self::fields`].
    #[inline(never)]
    pub(super) fn add_fields(
        &self,
        lines: &mut Vec<u8>,
        wish: Option<Wish>,
        local: &LocalTarget,
        scheme: Scheme,
    ) {
        for (name, value) in self.fields(wish, local, scheme) {
            if extras::replaces(&name) {
                extras::cut_field(lines, name.as_str().as_bytes());
            }
            fields::line(lines, name.as_str().as_bytes(), value.as_bytes());
        }
    }

    /// The fields that portok adds to the answer of `local` for a client with this `wish`, who
    /// speaks `scheme`: what a sticky client is told, what is left of a tier, and what its extras
    /// have.
    #[inline(never)]
    pub(super) fn fields(
        &self,
        wish: Option<Wish>,
        local: &LocalTarget,
        scheme: Scheme,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let told = self.service.settings.told(wish, local, scheme);
        let cookie = told.and_then(|told| Some((header::SET_COOKIE, HeaderValue::try_from(told).ok()?)));
        let quota = self.extras().and_then(|extras| extras.place()?.told());
        let mut fields: Vec<_> =
            cookie.into_iter().chain(quota.iter().flat_map(Quota::header_fields)).collect();
        fields.extend(self.extras().into_iter().flat_map(|extras| extras.answer_fields(Some(&local.target))));
        fields
    }

    /// Takes a place for the tunnel that the request may become.
    pub(super) fn reserve_tunnel(&mut self) -> Result<(), Fault> {
        let most = self.service.settings.app.limits.tunnels;
        if self.stay.as_mut().is_none_or(|stay| stay.reserve_tunnel(most)) {
            return Ok(());
        }
        self.service.crowd().warn_full(Limit::Tunnels, Some(most), None);
        Err(Fault::TooManyTunnels)
    }

    /// It has become a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        if let Some(stay) = &mut self.stay {
            stay.become_tunnel();
        }
        if let Some(extras) = &self.extras {
            extras.became_tunnel();
        }
    }

    /// It becomes no tunnel: gives its place back.
    pub(super) fn leave_tunnels(&mut self) {
        if let Some(stay) = &mut self.stay {
            stay.leave_tunnels();
        }
    }

    /// Counts the answer's status, for `target`'s release too.
    pub(super) fn answered(&self, status: u16, target: Option<&Target>) {
        if let Some(extras) = &self.extras {
            extras.answered(status, target);
        }
        self.service.counts().answered(status);
        if let (Some(target), true) = (target, self.started.is_some()) {
            target.release_counters().answered(self.service.lane(), status);
        }
    }

    /// The answer is whole.
    pub(super) fn finish(&self) {
        self.finished.set(true);
    }

    /// Answers with an error of portok's own, and counts it. `at`: the target that failed, if one
    /// was asked; a server error counts for its release.
    pub(super) fn refuse(&self, fault: &Fault, at: Option<&LocalTarget>, close: bool) -> Response<Bytes> {
        let (config, upstream) = (&self.service.settings.config, &self.service.settings.app.upstream);
        if matches!(fault, Fault::UpstreamFull) {
            let most = upstream.max_connections;
            self.service.crowd().warn_full(Limit::UpstreamConnections, Some(most), None);
        }
        self.service.counters.refused(fault.code());
        let cause = fault.cause();
        tracing::debug!(code = fault.code(), tier = self.tier(), %cause, "a request got no answer of the app's");
        if fault.is_error() {
            self.count_error(fault, cause);
        }
        let pages = self.extras().filter(|extras| extras.takes_html());
        let pages = pages.map(|_| &*self.service.settings.app.errors.pages);
        let mut response = fault.answer(config.log.verbose_errors, close, upstream.timeout_status, pages);
        let at = at.filter(|_| response.status().is_server_error());
        self.answered(response.status().as_u16(), at.map(|at| &*at.target));
        if let Some(extras) = self.extras() {
            extras.refused(fault.code(), &mut response, at.map(|at| &*at.target));
        }
        self.finish();
        response
    }

    /// Counts an answer that broke off, and returns why it did.
    pub(super) fn broke(&self, fault: &Fault) -> String {
        let cause = fault.cause();
        if let Some(extras) = self.extras() {
            extras.failed(fault.code());
        }
        tracing::debug!(code = fault.code(), %cause, "an answer broke off");
        self.count_error(fault, cause.clone());
        cause
    }

    fn count_error(&self, fault: &Fault, cause: String) {
        self.service.counters.error(self.service.lane(), fault.code(), cause);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let measured = self.started.filter(|_| self.finished.get());
        self.service.counts().end(measured.map(|started| started.elapsed()));
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}
