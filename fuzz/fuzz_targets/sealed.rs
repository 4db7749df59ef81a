#![no_main]
//! See `weir_fuzz::sealed`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_fuzz::sealed(data));
