//! What holds for any query, `Accept` and body that the admin API is sent. For tests and the fuzz
//! targets.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};

use super::request::{self, Query};
use crate::wire::ErrorBody;

/// The longest message of a refusal: it repeats no value.
const LONGEST: usize = 1_000;

/// The first byte says what the others are.
pub(crate) fn bodies(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 5 {
        0 => match request::deploy(bytes) {
            Ok(deploy) => {
                let written = serde_json::to_vec(&deploy).unwrap_or_default();
                assert!(request::deploy(&written).is_ok_and(|again| again == deploy));
            }
            Err(refused) => check(&refused),
        },
        1 => drop(request::maintenance(bytes).map_err(|refused| check(&refused))),
        2 => match request::upgrade(bytes) {
            Ok(program) => assert!(program.is_none_or(|program| program.is_absolute())),
            Err(refused) => check(&refused),
        },
        3 => match str::from_utf8(bytes).map(Query::parse) {
            Ok(Ok(query)) => {
                let port = query.get("port");
                assert_eq!(port.is_err(), query.all("port").count() > 1);
            }
            Ok(Err(refused)) => check(&refused),
            Err(_) => (),
        },
        _ => {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
            request::prefers(&HeaderMap::from_iter([(ACCEPT, value)]), "text/plain");
        }
    }
}

fn check(refused: &ErrorBody) {
    let message = &refused.message;
    assert!(!message.is_empty() && message.len() < LONGEST, "{message}");
}
