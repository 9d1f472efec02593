//! Redis as a source of apps: begins and ends with the configuration, and its tables are put in
//! force.

use std::net::SocketAddr;
use std::sync::Arc;

use super::super::from_redis::{FromRedis, config_of_all, drain};
use super::Registry;
use crate::config::Config;
use crate::proxy::Target;
use crate::redis::{self, Redis};

impl Registry {
    /// Has what the configuration says of Redis: connects, goes on by other settings, or leaves.
    pub(super) async fn configure_redis(&mut self) {
        let wanted = settings(&self.config, &self.listen.borrow_and_update());
        match (wanted, &mut self.redis) {
            (None, None) => {}
            (Some(settings), Some(redis)) => {
                redis.source().reconfigure(settings);
                redis.configure(&self.config, &self.means.board);
            }
            (Some(settings), None) => {
                let file = redis::table_file(&self.config.state_file);
                let source = Redis::start(settings, &file).await;
                self.take_redis(source);
            }
            (None, Some(_)) => self.leave_redis().await,
        }
    }

    /// Takes the source, with the table that it has.
    pub(in crate::apps) fn take_redis(&mut self, source: Redis) {
        let mut redis = FromRedis::new(source, &self.config, &self.means.counters, self.means.prober.clone());
        // No target can have left.
        redis.apply(&self.means.board);
        self.redis = Some(redis);
    }

    /// Ends what belongs to Redis. Its routes go with the next settlement.
    pub(super) async fn leave_redis(&mut self) {
        if let Some(redis) = self.redis.take() {
            // Its routes are among those that are published.
            self.published = None;
            let left = redis.end().await;
            self.drain(left);
        }
    }

    /// Waits for another table. Cancel safe.
    pub(super) async fn redis_changed(redis: &mut Option<FromRedis>) {
        match redis {
            Some(redis) => redis.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Puts the newest table, marks and probes in force.
    pub(super) fn follow_redis(&mut self) {
        let Some(redis) = &mut self.redis else { return };
        let applied = redis.apply(&self.means.board);
        if applied.other_lists {
            self.route();
            self.publish();
        }
        self.drain(applied.left);
    }

    fn drain(&mut self, left: Vec<Arc<Target>>) {
        if !left.is_empty() {
            let drained = drain(left, config_of_all(&self.config).drain.period);
            self.drains.spawn(drained);
        }
    }
}

/// What Redis is asked for, and by which rules.
pub(in crate::apps) fn settings(config: &Config, listen: &[SocketAddr]) -> Option<redis::Settings> {
    let redis = config.redis.clone().filter(|_| config.apps.is_some())?;
    // A target that could not be reached is out as long as its mark counts.
    let mark_for = redis.app.upstream.eject_for;
    Some(redis::Settings { redis, listen: listen.to_vec(), file: config.file.clone(), mark_for })
}
