//! hyper's client judges this codec: hyper reads in the same way what this codec accepts.

use proptest::prelude::*;

use super::fuzzing::{hypers, own};

fn answer() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        3 => Just("HTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.1 404 Not Found\r\n"),
        1 => Just("HTTP/1.1 204 No Content\r\n"),
        1 => Just("HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.0 200 OK\r\n"),
    ];
    let field = prop_oneof![
        3 => Just("content-length: 5\r\n"),
        1 => Just("content-length: 4\r\n"),
        1 => Just("content-length: 05\r\n"),
        3 => Just("transfer-encoding: chunked\r\n"),
        1 => Just("transfer-encoding: gzip, chunked\r\n"),
        1 => Just("x: y\r\n"),
        1 => Just("x: y\n"),
        1 => Just("x: y\r\n\tz\r\n"),
    ];
    let body = prop_oneof![
        Just("hello"),
        Just("5\r\nhello\r\n0\r\n\r\n"),
        Just("5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n"),
        Just("5 \r\nhello\r\n0\r\n\r\n"),
        Just("5\nhello\n0\n\n"),
        Just("5\r\nhello"),
        Just(""),
    ];
    (line, proptest::collection::vec(field, 0..3), body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()).into_bytes())
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_hyper_reads(bytes in answer()) {
        if let Some(read) = own(&bytes) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let theirs = runtime.block_on(hypers(&bytes));
            prop_assert_eq!(Some(read), theirs, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
