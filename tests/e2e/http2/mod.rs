//! HTTP/2 towards clients, through the front door of a real daemon.
//!
//! [`frames`] is a client of raw frames. [`protocol`], [`streams`] and [`messages`] go through the
//! rules of RFC 9113 and RFC 7541 one by one ([`case`] says how an entry is written),
//! [`smuggling`] tries to have a malformed head reach an HTTP/1.1 app, [`answers`] plays the corpus
//! of what apps answer, and in [`floods`] and [`slow`] clients keep portok busy while others are
//! served.

mod answers;
mod case;
mod floods;
pub(crate) mod frames;
mod hpack;
mod messages;
mod protocol;
mod slow;
mod smuggling;
mod streams;
mod tls;
mod websockets;
