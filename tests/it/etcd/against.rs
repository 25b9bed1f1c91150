//! The same requests to a real etcd and to ours: every answer must be the same but for who gives it.

use std::fmt::Debug;
use std::net::TcpListener;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_stream::StreamExt as _;
use tonic::{Response, Status};
use weft::net::rng::Rng;
use weft::pb::etcd::etcdserverpb::compare::TargetUnion;
use weft::pb::etcd::etcdserverpb::request_op::Request;
use weft::pb::etcd::etcdserverpb::response_op;
use weft::pb::etcd::etcdserverpb::watch_request::RequestUnion;
use weft::pb::etcd::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, WatchCreateRequest,
    WatchRequest,
};
use weft::pb::etcd::mvccpb::Event;

use super::*;
use crate::pace::look_again;
use crate::programs;

const REQUESTS: usize = 1500;
/// Another number in this variable makes other requests up.
const SEED: &str = "WEFT_ETCD_SEED";
const KEYS: [&[u8]; 8] = [b"a", b"a/1", b"a/2", b"b", b"b\x00", b"\xff", b"\xff\xff", b"c"];
const ENDS: [&[u8]; 6] = [b"", b"", b"\x00", b"b", b"a0", b"\xff"];
const LEASES: [i64; 3] = [11, 12, 13];

/// A real etcd, gone with this value.
struct Real {
    _process: Child,
    _data: TempDir,
    client: Client,
}

impl Real {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let [client, peer] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        });
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let process = Command::new("etcd")
            .args(["--data-dir", &data.path().to_string_lossy(), "--log-level", "error"])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("no etcd to compare with; install etcd-server, as .ci/run does");
        let started = Instant::now();
        while tokio::net::TcpStream::connect(client).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "the real etcd does not listen");
            look_again().await;
        }
        let mut connected = Client::connect(client).await;
        // It listens before it has a leader.
        while connected.kv.range(under("a")).await.is_err() {
            assert!(started.elapsed() < DEADLINE, "the real etcd does not serve");
            look_again().await;
        }
        Self { _process: process, _data: data, client: connected }
    }
}

/// Makes requests up.
struct Maker {
    rng: Rng,
    revision: i64,
}

impl Maker {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.rng.below(of.len() as u64)).unwrap()]
    }

    fn chance(&mut self, of: u64) -> bool {
        self.rng.below(of) == 0
    }

    fn number(&mut self, below: u64) -> i64 {
        i64::try_from(self.rng.below(below)).unwrap()
    }

    fn key(&mut self) -> Bytes {
        if self.chance(60) { Bytes::new() } else { self.one(&KEYS).into() }
    }

    fn value(&mut self) -> Bytes {
        let values: [&[u8]; 4] = [b"", b"1", b"2", b"\x00\xff"];
        self.one(&values).into()
    }

    fn lease(&mut self) -> i64 {
        match self.rng.below(6) {
            0 | 1 => self.one(&LEASES),
            2 if self.chance(3) => 404,
            _ => 0,
        }
    }

    fn past(&mut self) -> i64 {
        if self.chance(3) { (self.revision + 2 - self.number(12)).max(-1) } else { 0 }
    }

    fn put(&mut self) -> PutRequest {
        let (ignore_value, ignore_lease) = (self.chance(8), self.chance(8));
        let mixed = self.chance(10);
        PutRequest {
            key: self.key(),
            value: if ignore_value && !mixed { Bytes::new() } else { self.value() },
            lease: if ignore_lease && !mixed { 0 } else { self.lease() },
            prev_kv: self.chance(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn range(&mut self) -> RangeRequest {
        let bound = |maker: &mut Self| if maker.chance(6) { maker.number(40) } else { 0 };
        let (sort_order, sort_target) = (self.number(3), self.number(5));
        RangeRequest {
            key: self.key(),
            range_end: self.one(&ENDS).into(),
            limit: if self.chance(3) { self.number(4) } else { 0 },
            revision: self.past(),
            sort_order: i32::try_from(sort_order).unwrap(),
            sort_target: i32::try_from(sort_target).unwrap(),
            serializable: self.chance(2),
            keys_only: self.chance(4),
            count_only: self.chance(6),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.chance(2) { Bytes::new() } else { self.one(&ENDS).into() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.chance(2) }
    }

    fn compare(&mut self) -> Compare {
        let target = self.number(5);
        let union = match target {
            0 => TargetUnion::Version(self.number(4)),
            1 => TargetUnion::CreateRevision(self.number(40)),
            2 => TargetUnion::ModRevision(self.number(40)),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        let result = self.number(4);
        Compare {
            result: i32::try_from(result).unwrap(),
            target: i32::try_from(target).unwrap(),
            key: self.key(),
            target_union: Some(union),
            range_end: if self.chance(4) { self.one(&ENDS).into() } else { Bytes::new() },
        }
    }

    fn operations(&mut self, levels: u32) -> Vec<RequestOp> {
        (0..self.rng.below(4))
            .map(|_| {
                let request = match self.rng.below(8) {
                    0..=2 => Request::RequestPut(self.put()),
                    3 | 4 => Request::RequestRange(self.range()),
                    5 => Request::RequestDeleteRange(self.delete()),
                    6 if levels > 0 => Request::RequestTxn(self.txn(levels - 1)),
                    _ => Request::RequestRange(self.range()),
                };
                RequestOp { request: if self.chance(80) { None } else { Some(request) } }
            })
            .collect()
    }

    fn txn(&mut self, levels: u32) -> TxnRequest {
        TxnRequest {
            compare: (0..self.rng.below(3)).map(|_| self.compare()).collect(),
            success: self.operations(levels),
            failure: self.operations(levels),
        }
    }
}

/// Both answers must be the same. Returns ours.
fn same<T: Debug + PartialEq>(
    what: &dyn Debug,
    real: Result<Response<T>, Status>,
    ours: Result<Response<T>, Status>,
    clean: impl Fn(&mut T),
) -> Option<T> {
    let plain = |answer: Result<Response<T>, Status>| match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            clean(&mut answer);
            Ok(answer)
        }
        Err(status) => Err((status.code(), status.message().to_owned())),
    };
    let (real, ours) = (plain(real), plain(ours));
    assert_eq!(ours, real, "ours is on the left, for {what:#?}");
    ours.ok()
}

/// Takes out of a header who answers.
fn anonymous(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        assert!(header.cluster_id == 0 || header.raft_term > 0);
        *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    }
}

/// Nested headers are nobody's already; only the revision of each matters.
fn anonymous_all(responses: &mut [ResponseOp]) {
    for response in responses.iter_mut().filter_map(|one| one.response.as_mut()) {
        match response {
            response_op::Response::ResponseRange(answer) => anonymous(&mut answer.header),
            response_op::Response::ResponsePut(answer) => anonymous(&mut answer.header),
            response_op::Response::ResponseDeleteRange(answer) => anonymous(&mut answer.header),
            response_op::Response::ResponseTxn(answer) => {
                anonymous(&mut answer.header);
                anonymous_all(&mut answer.responses);
            }
        }
    }
}

/// One made-up request to both; returns the revision afterwards, if it is told.
async fn step(maker: &mut Maker, real: &mut Client, ours: &mut Client) -> Option<i64> {
    let header = match maker.rng.below(20) {
        0..=5 => {
            let request = maker.put();
            let answers = (real.kv.put(request.clone()).await, ours.kv.put(request.clone()).await);
            same(&request, answers.0, answers.1, |a| anonymous(&mut a.header))?.header
        }
        6..=9 => {
            let request = maker.range();
            let answers = (real.kv.range(request.clone()).await, ours.kv.range(request.clone()).await);
            same(&request, answers.0, answers.1, |a| anonymous(&mut a.header))?.header
        }
        10 | 11 => {
            let request = maker.delete();
            let real = real.kv.delete_range(request.clone()).await;
            let ours = ours.kv.delete_range(request.clone()).await;
            same(&request, real, ours, |a| anonymous(&mut a.header))?.header
        }
        12..=15 => {
            let request = maker.txn(2);
            let answers = (real.kv.txn(request.clone()).await, ours.kv.txn(request.clone()).await);
            let clean = |answer: &mut weft::pb::etcd::etcdserverpb::TxnResponse| {
                anonymous(&mut answer.header);
                anonymous_all(&mut answer.responses);
            };
            same(&request, answers.0, answers.1, clean)?.header
        }
        16 => {
            let ttl = 600 + maker.number(3);
            let request = LeaseGrantRequest { ttl, id: maker.one(&LEASES) };
            let answers = (real.lease.lease_grant(request).await, ours.lease.lease_grant(request).await);
            same(&request, answers.0, answers.1, |a| anonymous(&mut a.header))?.header
        }
        17 => {
            let request = LeaseRevokeRequest { id: maker.one(&LEASES) };
            let answers =
                (real.lease.lease_revoke(request).await, ours.lease.lease_revoke(request).await);
            same(&request, answers.0, answers.1, |a| anonymous(&mut a.header))?.header
        }
        18 => {
            let request = LeaseTimeToLiveRequest { id: maker.one(&LEASES), keys: maker.chance(2) };
            let real = real.lease.lease_time_to_live(request).await;
            let ours = ours.lease.lease_time_to_live(request).await;
            let clean = |answer: &mut weft::pb::etcd::etcdserverpb::LeaseTimeToLiveResponse| {
                anonymous(&mut answer.header);
                answer.ttl = answer.ttl.signum(); // the seconds that are left depend on the moment
                answer.keys.sort_unstable();
            };
            same(&request, real, ours, clean)?.header
        }
        _ if maker.chance(6) => {
            let revision = maker.revision - maker.number(20);
            let request = CompactionRequest { revision, physical: true };
            let answers = (real.kv.compact(request).await, ours.kv.compact(request).await);
            same(&request, answers.0, answers.1, |a| anonymous(&mut a.header))?.header
        }
        _ => return None,
    };
    header.map(|header| header.revision)
}

/// Every event of a range from a revision on, up to the last one.
async fn events(client: &mut Client, request: WatchCreateRequest, last: i64) -> Vec<Event> {
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) };
    let outgoing = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let mut answers = client.watch.watch(outgoing).await.unwrap().into_inner();
    let mut events: Vec<Event> = Vec::new();
    let is_last = |event: &Event| event.kv.as_ref().unwrap().mod_revision == last;
    while !events.last().is_some_and(is_last) {
        let answer = within("an event", answers.message()).await.unwrap().unwrap();
        assert!(!answer.canceled, "{answer:?}");
        events.extend(answer.events);
    }
    events
}

#[tokio::test]
async fn etcd_itself_answers_the_same() {
    if !programs::present(&["etcd"]) {
        return;
    }
    let mut real = Real::start().await;
    let etcd = Etcd::start().await;
    let mut ours = etcd.client().await;
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("the requests are those of {SEED}={seed}");
    let mut maker = Maker { rng: Rng::from_seed(seed), revision: 1 };
    for number in 0..REQUESTS {
        if let Some(revision) = step(&mut maker, &mut real.client, &mut ours).await {
            assert!(revision >= maker.revision, "request {number}: the revision went backwards");
            maker.revision = revision;
        }
    }
    assert!(maker.revision > 300, "only {} revisions; the requests say little", maker.revision);
    // A last event in every range, so that both know where to end.
    let mut last = 0;
    for client in [&mut real.client, &mut ours] {
        last = client.put("b", "end", 0).await;
    }
    for (end, prev_kv) in [("", false), ("\0", true), ("z", false)] {
        let request = WatchCreateRequest {
            key: if end.is_empty() { bytes("b") } else { bytes("a") },
            range_end: bytes(end),
            start_revision: maker.revision - 5,
            prev_kv,
            ..WatchCreateRequest::default()
        };
        let expected = events(&mut real.client, request.clone(), last).await;
        assert_eq!(events(&mut ours, request, last).await, expected, "{end:?}");
    }
    etcd.stop().await;
}
