#![no_main]
//! See `weir_fuzz::envelope`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::envelope(data));
