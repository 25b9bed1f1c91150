//! The program as people run it: real processes on loopback, killed and restarted for real.
//!
//! `WEFT_SLOW=1` runs the long versions; without it each of them prints what it has left out.

mod access;
mod bad_input;
mod chaos;
mod clock;
mod custody;
mod discovery;
mod drain;
mod end_to_end;
mod enrolment;
mod external;
mod flood;
mod frozen;
mod holder;
mod keys;
mod leave;
mod loss;
mod mesh;
mod overload;
mod pair;
mod policy;
mod privacy;
mod registry;
mod reload;
mod renewal;
mod restart;
mod rotation;
mod run;
mod service_manager;
mod soak;
mod sockets;
mod stalled;
mod support;
mod traffic;
mod upgrade;
mod waiting;
mod workload;

pub(crate) use support::slow;
