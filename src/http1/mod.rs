//! HTTP/1.1 as portok reads it: what a message says, judged once for all its readers.
//!
//! The proxy passes on only what these rules understand in one way, and a probe calls nothing else
//! healthy: an answer that clients would get as 502 is no sign of health. Everything here is pure:
//! bytes in, a meaning or an error out.
//!
//! - [`head`] reads the head of an answer, [`chunked`] a body in chunks;
//! - [`fields`] knows what a field is to a proxy, [`host`] what a host is, [`target`] what a
//!   request's target names.

pub(crate) mod chunked;
pub(crate) mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod head;
pub(crate) mod host;
pub(crate) mod target;
#[cfg(test)]
mod tests;
