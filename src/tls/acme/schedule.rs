//! When a certificate is ordered, and when the server is asked about its renewal. Pure: moments are
//! seconds since 1970, and whoever asks says what the clock shows. The clock may jump, so nothing
//! is believed that lies after now and should lie before it.

/// The most orders in an hour, of all hosts together.
const ORDERS_AN_HOUR: usize = 10;

const HOUR: u64 = 3600;

/// How long is waited after a first failure. It doubles with each further one.
const FIRST_DELAY: u64 = 60;
const LONGEST_DELAY: u64 = 12 * HOUR;

/// How often the server is asked about a renewal.
const ASK_EVERY: u64 = 24 * HOUR;

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) begins: u64,
    pub(super) ends: u64,
}

impl Life {
    /// When a third of it is left.
    fn last_third(self) -> u64 {
        self.ends - self.ends.saturating_sub(self.begins) / 3
    }
}

/// What is known of a host.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Host {
    /// That of the certificate that there is.
    pub(super) life: Option<Life>,
    /// When the server suggests to renew it.
    pub(super) suggested: Option<u64>,
    /// When the server was asked about that.
    pub(super) asked: Option<u64>,
    /// How many orders have failed since one was fulfilled, and when the last one did.
    pub(super) failures: u32,
    pub(super) failed: u64,
    /// The server has said that there are too many.
    pub(super) limited: bool,
}

impl Host {
    /// When its certificate is to be renewed, or ordered: 0 is at once.
    pub(super) fn renewal(&self) -> u64 {
        let Some(life) = self.life else { return 0 };
        self.suggested.map_or(life.last_third(), |suggested| suggested.min(life.last_third()))
    }

    /// When it may be ordered, as far as the host alone is concerned.
    pub(super) fn due(&self, now: u64) -> u64 {
        let has_failed = self.failures > 0 && self.failed <= now;
        let wait = if has_failed { self.failed + self.delay() } else { 0 };
        self.renewal().max(wait)
    }

    fn delay(&self) -> u64 {
        let doubled = FIRST_DELAY << self.failures.saturating_sub(1).min(20);
        doubled.clamp(if self.limited { HOUR } else { 0 }, LONGEST_DELAY)
    }

    /// When the server is to be asked about the renewal; `None`: there is nothing to renew.
    pub(super) fn question(&self, now: u64) -> Option<u64> {
        self.life?;
        Some(self.asked.filter(|asked| *asked <= now).map_or(0, |asked| asked + ASK_EVERY))
    }
}

/// When the next order may be made, after `orders`.
pub(super) fn next_order(now: u64, orders: &[u64]) -> u64 {
    let mut recent: Vec<u64> = orders.iter().copied().filter(|at| *at <= now && *at + HOUR > now).collect();
    recent.sort_unstable();
    let first_that_counts = recent.len().checked_sub(ORDERS_AN_HOUR);
    first_that_counts.map_or(0, |first| recent[first] + HOUR)
}

/// Whether an order still counts for [`next_order`].
pub(super) fn counts(now: u64, order: u64) -> bool {
    order <= now && order + HOUR > now
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * HOUR;
    const NOW: u64 = 1_000 * DAY;

    fn with_life(begins: u64, ends: u64) -> Host {
        Host { life: Some(Life { begins, ends }), ..Host::default() }
    }

    #[test]
    fn what_there_is_not_is_ordered_at_once_and_renewed_when_a_third_is_left() {
        assert_eq!(Host::default().due(NOW), 0);
        assert_eq!(with_life(NOW, NOW + 90 * DAY).due(NOW), NOW + 60 * DAY);
        assert_eq!(with_life(NOW, NOW + 30).due(NOW), NOW + 20, "however short it is");
        assert_eq!(with_life(NOW + 5, NOW).due(NOW), NOW, "nonsense is due");
    }

    #[test]
    fn the_server_may_suggest_an_earlier_moment() {
        for (suggested, due) in [(10, 10), (60, 60), (80, 60)] {
            let host = Host { suggested: Some(NOW + suggested * DAY), ..with_life(NOW, NOW + 90 * DAY) };
            assert_eq!(host.due(NOW), NOW + due * DAY);
        }
    }

    #[test]
    fn failures_wait_longer_and_longer() {
        let failed = |failures, limited| Host { failures, failed: NOW, limited, ..Host::default() };
        let waits = [1, 2, 3, 9, 40].map(|failures| failed(failures, false).due(NOW) - NOW);
        assert_eq!(waits, [60, 120, 240, 60 << 8, LONGEST_DELAY]);
        assert_eq!(failed(1, true).due(NOW) - NOW, HOUR);
        assert_eq!(Host { failed: NOW + 1, ..failed(3, false) }.due(NOW), 0, "the clock went back");
    }

    #[test]
    fn at_most_ten_orders_are_made_in_an_hour() {
        let orders: Vec<u64> = (0..10).map(|number| NOW - 1000 + number).collect();
        assert_eq!(next_order(NOW, &orders[1..]), 0);
        assert_eq!(next_order(NOW, &orders), orders[0] + HOUR);
        let eleven = [&orders[..], &[NOW]].concat();
        assert_eq!(next_order(NOW, &eleven), orders[1] + HOUR);
        assert_eq!(next_order(NOW + HOUR, &orders), 0);
        assert_eq!(next_order(NOW - DAY, &orders), 0, "the clock went back");
    }

    #[test]
    fn the_server_is_asked_once_a_day() {
        let host = with_life(NOW, NOW + 90 * DAY);
        assert_eq!(host.question(NOW), Some(0));
        assert_eq!(Host { asked: Some(NOW), ..host }.question(NOW), Some(NOW + DAY));
        assert_eq!(Host { asked: Some(NOW + 1), ..host }.question(NOW), Some(0), "the clock went back");
        assert_eq!(Host::default().question(NOW), None);
    }
}
