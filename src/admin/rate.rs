//! How many requests an address made within the last minute.
//!
//! A sliding window never admits more than the limit within any 60 seconds. The requests of one
//! second share a bucket, so that a window has some sixty buckets at most, whatever the limit is. A
//! refused request is not counted: after the time that `Retry-After` names, the next one is
//! admitted.
//!
//! Memory is bounded by [`ADDRESSES`] windows. When all of them still count, none is given up: all
//! further addresses share one window more. So an attacker with many addresses cannot free a
//! limited address; latecomers are limited together with the attacker instead. The unix socket has
//! no limit.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The time over which requests are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How many addresses have a window of their own.
const ADDRESSES: usize = 4096;
/// Requests this close share a bucket.
const BUCKET: Duration = Duration::from_secs(1);
/// How often, at most, the table is searched for windows that count no more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Requests with the right token and all others are counted apart: requests without the token
/// cannot use up the share of those with it.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Only requests with the token get here, so nobody else can fill it.
    pub(super) right: Limiter,
    pub(super) others: Limiter,
}

/// Counts requests by address. The clock is the caller's.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    windows: HashMap<IpAddr, Window>,
    /// The window of all addresses that found the table full.
    shared: Window,
    swept: Option<Instant>,
}

impl Limiter {
    /// Counts a request of `address` at `now` if fewer than `limit` were counted in the minute
    /// before.
    ///
    /// # Errors
    /// The request is refused and not counted: the time after which one would be admitted.
    pub(super) fn admit(&mut self, address: IpAddr, limit: u32, now: Instant) -> Result<(), Duration> {
        let key = key(address);
        if !self.windows.contains_key(&key) && self.windows.len() >= ADDRESSES {
            self.sweep(now);
            if self.windows.len() >= ADDRESSES {
                return self.shared.admit(limit, now);
            }
        }
        self.windows.entry(key).or_default().admit(limit, now)
    }

    /// Whether a request of `address` at `now` would be counted.
    pub(super) fn has_room(&self, address: IpAddr, limit: u32, now: Instant) -> bool {
        match self.windows.get(&key(address)) {
            Some(window) => window.has_room(limit, now),
            // It would get one of its own, or the one that latecomers share.
            None => self.windows.len() < ADDRESSES || self.shared.has_room(limit, now),
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|last| now.saturating_duration_since(last) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.windows.retain(|_, window| window.counts_at(now));
    }
}

/// The address that a request is counted for. One host usually has a whole IPv6 /64 to itself, so
/// that counts as one address.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The requests of the last minute, oldest first.
#[derive(Debug, Default)]
struct Window {
    buckets: VecDeque<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    first: Instant,
    last: Instant,
    count: u32,
}

impl Bucket {
    /// How long it still counts.
    fn left(&self, now: Instant) -> Duration {
        WINDOW.saturating_sub(now.saturating_duration_since(self.last))
    }
}

impl Window {
    fn admit(&mut self, limit: u32, now: Instant) -> Result<(), Duration> {
        while self.buckets.front().is_some_and(|bucket| bucket.left(now).is_zero()) {
            self.buckets.pop_front();
        }
        let mut counted: u64 = self.buckets.iter().map(|bucket| u64::from(bucket.count)).sum();
        if counted < u64::from(limit) {
            match self.buckets.back_mut() {
                Some(bucket) if now.saturating_duration_since(bucket.first) < BUCKET => {
                    bucket.last = bucket.last.max(now);
                    bucket.count = bucket.count.saturating_add(1);
                }
                _ => self.buckets.push_back(Bucket { first: now, last: now, count: 1 }),
            }
            return Ok(());
        }
        // If the limit was lowered meanwhile, several buckets have to expire.
        for bucket in &self.buckets {
            counted -= u64::from(bucket.count);
            if counted < u64::from(limit) {
                return Err(bucket.left(now));
            }
        }
        Err(WINDOW)
    }

    fn has_room(&self, limit: u32, now: Instant) -> bool {
        let counting = self.buckets.iter().filter(|bucket| !bucket.left(now).is_zero());
        counting.map(|bucket| u64::from(bucket.count)).sum::<u64>() < u64::from(limit)
    }

    fn counts_at(&self, now: Instant) -> bool {
        self.buckets.back().is_some_and(|bucket| !bucket.left(now).is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_limit_is_kept_within_any_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::default();
        let mut admitted: Vec<u64> = Vec::new();
        // Ten times a second for five minutes.
        for tick in 0..3000 {
            if limiter.admit(ip(A), 10, start + Duration::from_millis(tick * 100)).is_ok() {
                admitted.push(tick * 100);
            }
        }
        for (index, first) in admitted.iter().enumerate() {
            let within = admitted[index..].iter().take_while(|at| **at < first + 60_000).count();
            assert!(within <= 10, "{within} requests in the minute from {first} ms");
        }
        assert!(admitted.len() >= 40, "the limit is used up each minute: {admitted:?}");
    }

    #[test]
    fn there_is_room_as_long_as_one_more_would_be_counted() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        for number in 0..3 {
            assert!(limiter.has_room(ip(A), 3, now), "{number}");
            limiter.admit(ip(A), 3, now).unwrap();
        }
        assert!(!limiter.has_room(ip(A), 3, now + seconds(59)));
        assert!(limiter.has_room(ip("192.0.2.2"), 3, now));
        assert!(limiter.has_room(ip(A), 3, now + seconds(60)));
    }

    #[test]
    fn who_waits_as_told_is_admitted() {
        let mut now = Instant::now();
        let mut limiter = Limiter::default();
        for _ in 0..3 {
            limiter.admit(ip(A), 3, now).unwrap();
            now += seconds(7);
        }
        let wait = limiter.admit(ip(A), 3, now).unwrap_err();
        assert_eq!(wait, seconds(60 - 21));
        for _ in 0..100 {
            limiter.admit(ip(A), 3, now).unwrap_err();
        }
        limiter.admit(ip(A), 3, now + wait - Duration::from_millis(1)).unwrap_err();
        limiter.admit(ip(A), 3, now + wait).unwrap();
    }

    #[test]
    fn the_limit_may_change_meanwhile() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        for second in 0..10 {
            limiter.admit(ip(A), 10, now + seconds(second)).unwrap();
        }
        // Nine of the ten have to be gone before one of two is free.
        assert_eq!(limiter.admit(ip(A), 2, now + seconds(10)), Err(seconds(58)));
        limiter.admit(ip(A), 11, now + seconds(10)).unwrap();
        assert_eq!(limiter.admit(ip(A), 0, now + seconds(500)), Err(WINDOW));
    }

    #[test]
    fn addresses_are_counted_by_who_has_them() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        limiter.admit(ip("192.0.2.1"), 1, now).unwrap();
        limiter.admit(ip("::ffff:192.0.2.1"), 1, now).unwrap_err();
        limiter.admit(ip("192.0.2.2"), 1, now).unwrap();
        limiter.admit(ip("2001:db8::1"), 1, now).unwrap();
        limiter.admit(ip("2001:db8::ffff:2"), 1, now).unwrap_err();
        limiter.admit(ip("2001:db8:0:1::1"), 1, now).unwrap();
    }

    #[test]
    fn many_addresses_neither_fill_the_memory_nor_free_who_is_limited() {
        let now = Instant::now();
        let mut limiter = Limiter::default();
        limiter.admit(ip(A), 1, now).unwrap();
        let mut refused = 0;
        for number in 0..20_000_u32 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number));
            refused += u32::from(limiter.admit(address, 1, now + seconds(1)).is_err());
        }
        assert_eq!(limiter.windows.len(), ADDRESSES);
        assert_eq!(refused, 20_000 - (4096 - 1) - 1, "one request is the shared window's");
        limiter.admit(ip(A), 1, now + seconds(59)).unwrap_err();
        // A minute later there is room again.
        limiter.admit(ip("198.51.100.7"), 1, now + seconds(62)).unwrap();
        limiter.admit(ip("198.51.100.8"), 1, now + seconds(62)).unwrap();
        assert_eq!(limiter.windows.len(), 2);
    }

    #[test]
    fn a_window_stays_small_under_a_large_limit() {
        let now = Instant::now();
        let mut window = Window::default();
        for tick in 0..200_000_u64 {
            window.admit(u32::MAX, now + Duration::from_millis(tick)).unwrap();
        }
        assert!(window.buckets.len() <= 62, "{}", window.buckets.len());
    }
}
