//! Certificates: which there are, which one a client is shown, and the handshake.
//!
//! One task, [`keeper`], owns them: it reads their [`files`], takes each [`pair`] apart, and lets
//! the [`shelf`] decide what becomes of it. What clients are shown ([`server`]) stands in a
//! [`store`] by the [`names`] of the certificates; the store is swapped as a whole, and the data
//! plane reads it by the [`face`] without a lock. What changes is logged once ([`voice`]). Another
//! task, [`acme`], has certificates come by themselves, and puts them where the keeper finds them.
//!
//! The tasks end with the daemon. A connection keeps what it was shown, whatever is swapped.

mod acme;
mod face;
mod files;
mod hello;
mod keeper;
mod names;
mod pair;
mod server;
mod shelf;
mod store;
mod voice;

#[cfg(test)]
mod tests;

pub use face::{Choice, Face};
pub use hello::{Heard, hear};
pub use keeper::{Certificates, survey};
pub use rustls::Error as TlsError;
pub use server::HTTP_2;
