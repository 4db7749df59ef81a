#![no_main]
//! See `weir_fuzz::event_stream`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::event_stream(data));
