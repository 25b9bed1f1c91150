//! libFuzzer's entry to the requests of etcd clients. `fuzz/run etcd` builds and runs it.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../etcd_oracle.rs"]
mod oracle;

fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
