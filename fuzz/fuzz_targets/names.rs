#![no_main]
//! See `weir_fuzz::names`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::names(data));
