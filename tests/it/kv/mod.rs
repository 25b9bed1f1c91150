//! Keys, sessions and transactions over HTTP, compared with the answers of a real Consul 1.8.7.

mod blocking;
mod sessions;
mod transactions;
mod values;

use crate::http::{Answer, Api};

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer without content, with the index by which one waits for some.
fn assert_nothing(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{answer:?}");
    assert_eq!(answer.header("content-length"), "0");
    assert!(answer.index() > 0);
    assert_eq!(answer.header("x-consul-knownleader"), "true");
    assert_eq!(answer.header("x-consul-lastcontact"), "0");
}

async fn assert_put(api: &Api, target: &str, body: &str, answer: &str) {
    let got = api.put(target, body).await;
    assert_eq!((got.status, got.body.as_str()), (200, answer), "PUT {target}");
    assert_eq!(got.header("content-type"), "application/json");
}
