//! The side towards an app that speaks HTTP/2 with prior knowledge (`upstream.protocol = "h2c"`).
//!
//! Its face is that of the client for HTTP/1.1 beside it: an [`exchange::Exchange`] takes a head
//! and a body, and gives a head and a [`body::Incoming`]. A request is a stream; a thread keeps
//! [`links::Links`], its connections to a target, each of which carries many streams.
//!
//! The frames are h2's, which refuses what HTTP/2 forbids. The order that matters: nothing of a
//! request is sent before the app has told its settings, so that how many streams it takes is
//! known, and a peer of another protocol gets none of it.

pub(in crate::proxy) mod body;
pub(in crate::proxy) mod exchange;
mod link;
pub(in crate::proxy) mod links;
mod message;

pub(in crate::proxy) use self::message::request as request_of;
