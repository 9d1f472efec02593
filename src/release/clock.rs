//! The present, in the form in which it is written down.

use std::time::SystemTime;

use crate::wire;

/// Now, as RFC 3339.
pub(super) fn now() -> String {
    wire::rfc3339(SystemTime::now())
}
