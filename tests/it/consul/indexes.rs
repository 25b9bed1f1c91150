//! What moves which index: the table that was recorded from Consul, and who is woken.

use std::collections::BTreeSet;

use super::capture;
use super::world::World;
use crate::http::{self, PATIENCE};

/// The columns of `index-semantics.txt`.
const READS: [&str; 9] = [
    "/v1/health/service/aa",
    "/v1/health/service/bb",
    "/v1/health/service/none",
    "/v1/catalog/service/aa",
    "/v1/catalog/services",
    "/v1/catalog/nodes",
    "/v1/health/state/any",
    "/v1/health/node/n1",
    "/v1/health/connect/aa",
];

/// Consul moves these though nothing in them changed; see "index of checks" in
/// `docs/consul-compatibility.md`.
const MOVED_FOR_NOTHING: [(&str, [&str; 2]); 1] =
    [("deregister cc", ["/v1/health/state/any", "/v1/health/node/n1"])];

type Indexes = [u64; READS.len()];

async fn write(world: &World, request: &str) {
    world.send_all(&[request]).await;
}

async fn indexes(world: &World) -> Indexes {
    let mut indexes = [0; READS.len()];
    for (index, read) in indexes.iter_mut().zip(READS) {
        *index = http::send(world.http, "GET", read, "").await.index();
    }
    indexes
}

/// The rows of the capture: what was done, and the indexes after it.
fn recorded() -> Vec<(String, Indexes)> {
    let text = capture::read("index-semantics.txt");
    let rows = text.lines().skip(1).take_while(|line| !line.starts_with("---"));
    rows.filter_map(|line| line.split_once(": "))
        .map(|(step, numbers)| {
            let numbers: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
            (step.to_owned(), numbers.try_into().unwrap())
        })
        .collect()
}

fn moved(before: &Indexes, after: &Indexes) -> BTreeSet<&'static str> {
    (0..READS.len()).filter(|n| before[*n] != after[*n]).map(|n| READS[n]).collect()
}

/// Pairs of reads that had the same index in every row.
fn always_equal(rows: &[(String, Indexes)]) -> Vec<(usize, usize)> {
    let pairs = (0..READS.len()).flat_map(|a| (a + 1..READS.len()).map(move |b| (a, b)));
    pairs.filter(|(a, b)| rows.iter().all(|(_, row)| row[*a] == row[*b])).collect()
}

async fn step(world: &World, name: &str) {
    match name {
        "register cc" => write(world, r#"PUT /v1/agent/service/register <= {"Name":"cc"}"#).await,
        "aa check->warn" => write(world, "PUT /v1/agent/check/warn/service:aa").await,
        "aa check output only" => write(world, "PUT /v1/agent/check/warn/service:aa?note=new").await,
        "re-register bb identical" => {
            write(world, r#"PUT /v1/agent/service/register <= {"Name":"bb","Port":1}"#).await;
        }
        "bb port change" => {
            write(world, r#"PUT /v1/agent/service/register <= {"Name":"bb","Port":2}"#).await;
        }
        "node check added" => {
            let check = r#"{"Name":"disk","TTL":"10m","Status":"passing"}"#;
            write(world, &format!("PUT /v1/agent/check/register <= {check}")).await;
        }
        "node check warn" => write(world, "PUT /v1/agent/check/warn/disk").await,
        "node check removed" => write(world, "PUT /v1/agent/check/deregister/disk").await,
        "deregister cc" => write(world, "PUT /v1/agent/service/deregister/cc").await,
        "deregister aa" => write(world, "PUT /v1/agent/service/deregister/aa").await,
        // Whatever comes of it, no index of these moves.
        "kv write" => drop(world.send("PUT /v1/kv/a <= b").await),
        other => panic!("{other} is not known"),
    }
}

#[tokio::test]
async fn every_write_moves_the_indexes_that_it_moves_in_consul() {
    let world = World::start().await;
    let body = r#"{"Name":"aa","Check":{"TTL":"10m","Status":"passing"}}"#;
    write(&world, &format!("PUT /v1/agent/service/register <= {body}")).await;
    write(&world, r#"PUT /v1/agent/service/register <= {"Name":"bb","Port":1}"#).await;

    let recorded = recorded();
    assert_eq!(recorded.len(), 12);
    let equal = always_equal(&recorded);
    assert!(equal.len() >= 3, "{equal:?}");
    let mut before = indexes(&world).await;
    for rows in recorded.windows(2) {
        let [(_, consul_before), (name, consul_after)] = rows else { continue };
        step(&world, name).await;
        let after = indexes(&world).await;
        let mut expected = moved(consul_before, consul_after);
        for (_, reads) in MOVED_FOR_NOTHING.iter().filter(|(step, _)| step == name) {
            for read in reads {
                assert!(expected.remove(read), "{name}: {read} did not move in Consul");
            }
        }
        assert_eq!(moved(&before, &after), expected, "{name}");
        for (n, read) in READS.iter().enumerate() {
            assert!(after[n] >= before[n] && after[n] > 0, "{name}: {read} {before:?} {after:?}");
        }
        for (a, b) in &equal {
            assert_eq!(after[*a], after[*b], "{name}: {} and {}", READS[*a], READS[*b]);
        }
        before = after;
    }
}

#[tokio::test]
async fn sidecars_have_an_index_of_their_own() {
    let world = World::start().await;
    let web = r#"{"Name":"web","Port":1,"Connect":{"SidecarService":{"Checks":[{"TTL":"10m"}]}}}"#;
    write(&world, &format!("PUT /v1/agent/service/register <= {web}")).await;
    let index = |read: &'static str| async { http::send(world.http, "GET", read, "").await.index() };
    let (service, connect) =
        (index("/v1/health/service/web").await, index("/v1/health/connect/web").await);
    write(&world, r#"PUT /v1/agent/service/register <= {"Name":"other","Port":1}"#).await;
    assert_eq!(index("/v1/health/connect/web").await, connect);
    write(&world, "PUT /v1/agent/check/pass/service:web-sidecar-proxy").await;
    assert!(index("/v1/health/connect/web").await > connect);
    assert_eq!(index("/v1/health/service/web").await, service);
}

#[tokio::test]
async fn an_absent_service_sleeps_through_others_and_wakes_when_it_appears() {
    let world = World::start().await;
    write(&world, r#"PUT /v1/agent/service/register <= {"Name":"gone"}"#).await;
    write(&world, "PUT /v1/agent/service/deregister/gone").await;
    for read in ["/v1/health/service/late", "/v1/catalog/service/late"] {
        let index = http::send(world.http, "GET", read, "").await.index();
        let waiting = format!("GET {read}?index={index}&wait=10m");
        let waiting = tokio::time::timeout(PATIENCE, world.send(&waiting));
        let (woken, ()) = tokio::join!(waiting, async {
            write(&world, r#"PUT /v1/agent/service/register <= {"Name":"early"}"#).await;
            let unmoved = http::send(world.http, "GET", read, "").await;
            assert_eq!(unmoved.index(), index, "{read}");
            write(&world, r#"PUT /v1/agent/service/register <= {"Name":"late"}"#).await;
        });
        let woken = woken.expect("it was not woken");
        assert!(woken.index() > index);
        assert_eq!(woken.json().as_array().map(Vec::len), Some(1), "{read}");
        // The last instance takes the index along: who waits is told.
        let waiting = format!("GET {read}?index={}&wait=10m", woken.index());
        let waiting = tokio::time::timeout(PATIENCE, world.send(&waiting));
        let (woken, ()) = tokio::join!(waiting, write(&world, "PUT /v1/agent/service/deregister/late"));
        assert_eq!(woken.expect("it was not woken").json().as_array().map(Vec::len), Some(0), "{read}");
    }
}
