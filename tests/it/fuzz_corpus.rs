//! Every input of `fuzz/corpus` against the oracle of its fuzz target, so that what fuzzing once found
//! stays found. `fuzz/run` looks for more.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/filter_oracle.rs"]
mod filter_oracle;
#[path = "../../fuzz/oracle.rs"]
mod oracle;

#[test]
fn the_codec_keeps_its_promises_for_every_input_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/codec");
    let (mut inputs, mut events) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when the oracle panics
        events += oracle::check(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 18, "only {inputs} inputs");
    // One input holds every frame; were the format of inputs to change, they would say next to nothing.
    assert!(events >= 30, "only {events} events in {inputs} inputs");
}

#[test]
fn filters_keep_their_promises_for_every_input_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/filter");
    let (mut inputs, mut expressions) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when the oracle panics
        expressions += usize::from(filter_oracle::check(&fs::read(&path).unwrap()));
        inputs += 1;
    }
    assert!(inputs >= 20, "only {inputs} inputs");
    assert!(expressions >= 8, "only {expressions} of {inputs} inputs are expressions");
}
