#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portok::fuzzing::run("proxy_headers", bytes));
