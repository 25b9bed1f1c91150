//! Conformance with Consul: requests that were sent to a real Consul 1.8.7 are sent to our server, and
//! the answers compared. The captures are in `tests/corpus/consul`.

mod capture;
mod clients;
mod compare;
mod expectations;
mod indexes;
mod replay;
mod world;
