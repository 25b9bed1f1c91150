//! A tunnel passes TCP through without changing its meaning: every end, every byte, every pause.
//!
//! The matrix runs over both wires: `weft/1`, where a lane carries many streams, and Connect mode,
//! where two sidecars speak through a foreign proxy that knows nothing of lanes. `tests/mutants/run`
//! proves that these tests catch what they are there for.

/// Makes two tests of each function that takes a `Wire`: `lanes::name` and `connect::name`.
macro_rules! on_both_wires {
    ($($test:ident),+ $(,)?) => {
        mod lanes {
            $(#[tokio::test] async fn $test() { super::$test(super::Wire::Lanes).await; })+
        }
        mod connect {
            $(#[tokio::test] async fn $test() { super::$test(super::Wire::Connect).await; })+
        }
    };
}

mod bytes;
mod ends;
pub(crate) mod foreign;
mod leftovers;
mod pressure;
mod relay;
mod resets;
pub(crate) mod rig;
mod truncation;
mod vanished;
