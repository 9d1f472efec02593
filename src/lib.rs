//! portok: a deploy agent for one Linux host.

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod health;
pub mod hooks;
pub mod logging;
pub mod proxy;
pub mod release;
pub mod supervisor;
pub mod wire;
