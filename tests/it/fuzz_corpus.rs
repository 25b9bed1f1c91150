//! Every input of `fuzz/corpus` against the oracle of its fuzz target, so that what fuzzing once found
//! stays found. `fuzz/run` looks for more.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/config_oracle.rs"]
mod config_oracle;
#[path = "../../fuzz/etcd_oracle.rs"]
mod etcd_oracle;
#[path = "../../fuzz/filter_oracle.rs"]
mod filter_oracle;
#[path = "../../fuzz/oracle.rs"]
mod oracle;

#[test]
fn the_codec_keeps_its_promises_for_every_input_of_the_corpus() {
    let (inputs, events) = replay("codec", oracle::check);
    assert!(inputs >= 18, "only {inputs} inputs");
    // One input holds every frame; were the format of inputs to change, they would say next to nothing.
    assert!(events >= 30, "only {events} events in {inputs} inputs");
}

#[test]
fn filters_keep_their_promises_for_every_input_of_the_corpus() {
    let (inputs, expressions) = replay("filter", |input| usize::from(filter_oracle::check(input)));
    assert!(inputs >= 20, "only {inputs} inputs");
    assert!(expressions >= 8, "only {expressions} of {inputs} inputs are expressions");
}

#[test]
fn etcd_requests_keep_their_promises_for_every_input_of_the_corpus() {
    let (inputs, done) = replay("etcd", etcd_oracle::check);
    assert!(inputs >= 10, "only {inputs} inputs");
    assert!(done >= 40, "only {done} requests were carried out in {inputs} inputs");
}

#[test]
fn files_and_registrations_keep_their_promises_for_every_input_of_the_corpus() {
    let (inputs, valid) = replay("hcl", |input| usize::from(config_oracle::file(input)));
    assert!(inputs >= 15, "only {inputs} inputs");
    assert!(valid >= 8, "only {valid} of {inputs} files are valid");
    let (inputs, good) = replay("registration", |input| usize::from(config_oracle::registration(input)));
    assert!(inputs >= 30, "only {inputs} inputs");
    assert!(good >= 10, "only {good} of {inputs} bodies are registrations");
}

/// Gives every input of a corpus to its oracle; says how many there are, and the sum of its answers.
fn replay(target: &str, check: impl Fn(&[u8]) -> usize) -> (usize, usize) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let (mut inputs, mut sum) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when the oracle panics
        sum += check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    (inputs, sum)
}
