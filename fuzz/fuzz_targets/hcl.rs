//! libFuzzer's entry to configuration files. `fuzz/run hcl` builds and runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../config_oracle.rs"]
mod oracle;

fuzz_target!(|input: &[u8]| {
    oracle::file(input);
});
