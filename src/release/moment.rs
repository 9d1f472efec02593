//! A moment in the record, as RFC 3339.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(
    moment: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    moment.map(|moment| humantime::format_rfc3339_millis(moment).to_string()).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)).transpose()
}
