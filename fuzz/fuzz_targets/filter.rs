//! libFuzzer's entry to `?filter` expressions. `fuzz/run filter` builds and runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../filter_oracle.rs"]
mod oracle;

fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
