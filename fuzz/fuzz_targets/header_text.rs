#![no_main]
//! See `weir_fuzz::header_text`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::header_text(data));
