//! libFuzzer's entry to the DNS answerer. `fuzz/run dns` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weft::dns::Settings;

#[path = "../dns.rs"]
mod dns;

static WORLD: LazyLock<(dns::World, Settings)> =
    LazyLock::new(|| (dns::World::full(), dns::settings(true)));

fuzz_target!(|input: &[u8]| {
    dns::check(&WORLD.0, &WORLD.1, input);
});
