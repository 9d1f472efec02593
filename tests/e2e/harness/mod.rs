//! What all tests use: a folder and a daemon of their own, an app that misbehaves on command, a
//! load that checks every answer, a daemon that dies at a point, a raw client, a service manager
//! that keeps sockets, and the one way to wait.

pub(crate) mod app;
pub(crate) mod command;
pub(crate) mod conf;
pub(crate) mod daemon;
pub(crate) mod doomed;
pub(crate) mod fixture;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod manager;
pub(crate) mod procs;
pub(crate) mod random;
mod selftest;
pub(crate) mod tls;
pub(crate) mod wait;

pub(crate) use daemon::{Daemon, World, deploy_body, live, pid};
pub(crate) use doomed::{Doomed, ask, sweep};
pub(crate) use http::{Answer, Conn};
pub(crate) use load::{Asked, Load};
pub(crate) use manager::Manager;
pub(crate) use wait::{assert_at, assert_mentions, wait_eagerly, wait_until};
