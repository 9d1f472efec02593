//! HTTP/2 towards clients, through the front door of a real daemon.
//!
//! [`frames`] is a client of raw frames. [`protocol`], [`streams`] and [`messages`] go through the
//! rules of RFC 9113 and RFC 7541 one by one ([`case`] says how an entry is written), and
//! [`floods`] keeps portok busy while others are served.

mod case;
mod floods;
mod frames;
mod hpack;
mod messages;
mod protocol;
mod streams;
