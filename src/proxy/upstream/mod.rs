//! The side towards the app: one small HTTP/1.1 client, made for forwarding, and in [`h2c`] one for
//! apps that speak HTTP/2.
//!
//! Its face is one step: an [`exchange::Exchange`] takes a head and a body, and gives a head and a
//! body. All that an app sends is judged by [`crate::http1`], which is pure and strict: what could
//! be read in two ways is an error, and the connection is dropped.

pub(super) mod connection;
pub(super) mod exchange;
pub(super) mod h2c;
pub(super) mod outgoing;
pub(super) mod pool;
