#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tailcast::fuzzing::socketio(data));
