//! Any status, header and body as an answer of Expo's.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8], &[u8])| {
    let (status, header, body) = input;
    herald::provider::expo::answers::check(100 + status % 500, header, body);
});
