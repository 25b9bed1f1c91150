//! libFuzzer's entry to the tunnel's codec. `fuzz/run codec` builds and runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../oracle.rs"]
mod oracle;

fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
