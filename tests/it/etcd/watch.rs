//! Watches: from the past, filtered, several on a stream, cancelled, and too late.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weft::pb::etcd::etcdserverpb::watch_create_request::FilterType;
use weft::pb::etcd::etcdserverpb::watch_request::RequestUnion;
use weft::pb::etcd::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use weft::pb::etcd::mvccpb::event::EventType;

use super::*;

struct Watches {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watches {
    async fn open(client: &mut Client) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let answers = client.watch.watch(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> WatchResponse {
        within("an answer of the watch", self.answers.message()).await.unwrap().unwrap()
    }
}

fn on(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(key), start_revision, ..WatchCreateRequest::default() }
}

fn shown(answer: &WatchResponse) -> Vec<(bool, String, i64)> {
    let show = |event: &weft::pb::etcd::mvccpb::Event| {
        let kv = event.kv.as_ref().unwrap();
        let value = String::from_utf8(kv.value.to_vec()).unwrap();
        (event.r#type() == EventType::Put, value, kv.mod_revision)
    };
    answer.events.iter().map(show).collect()
}

async fn delete(client: &mut Client, key: &str) {
    let request = DeleteRangeRequest { key: bytes(key), ..DeleteRangeRequest::default() };
    client.kv.delete_range(request).await.unwrap();
}

#[tokio::test]
async fn the_past_is_heard_from_a_revision_on() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, 0).await; // revisions 2 to 4
    }
    delete(&mut client, "a").await;
    let mut watches = Watches::open(&mut client).await;
    assert!(watches.create(on("a", 3)).await.created);
    let past = watches.next().await;
    let expected = [(true, "2".to_owned(), 3), (true, "3".to_owned(), 4), (false, String::new(), 5)];
    assert_eq!((shown(&past), past.header.unwrap().revision), (expected.to_vec(), 5));
    client.put("a", "4", 0).await;
    assert_eq!(shown(&watches.next().await), [(true, "4".to_owned(), 6)]);

    // From a revision that has not come yet.
    let mut later = Watches::open(&mut client).await;
    assert!(later.create(on("a", 8)).await.created);
    for value in ["7", "8"] {
        client.put("a", value, 0).await;
    }
    assert_eq!(shown(&later.next().await), [(true, "8".to_owned(), 8)]);
    etcd.stop().await;
}

#[tokio::test]
async fn several_watches_share_a_stream() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let mut watches = Watches::open(&mut client).await;
    let filtered =
        |filter: FilterType| WatchCreateRequest { filters: vec![filter.into()], ..on("a", 0) };
    let ids = [
        watches.create(filtered(FilterType::Noput)).await.watch_id,
        watches.create(filtered(FilterType::Nodelete)).await.watch_id,
        watches.create(WatchCreateRequest { prev_kv: true, watch_id: 70, ..on("a", 0) }).await.watch_id,
    ];
    assert_eq!(ids, [0, 1, 70]);
    let twice = watches.create(WatchCreateRequest { watch_id: 70, ..on("b", 0) }).await;
    assert!(twice.created && twice.canceled && twice.watch_id == -1, "{twice:?}");
    assert_eq!(twice.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = watches.create(WatchCreateRequest { range_end: bytes("a"), ..on("b", 0) }).await;
    assert!(empty.canceled && empty.cancel_reason == "mvcc: watcher range is empty", "{empty:?}");

    client.put("a", "1", 0).await;
    let answers = [watches.next().await, watches.next().await];
    assert_eq!(answers.each_ref().map(|answer| answer.watch_id), [1, 70]);
    delete(&mut client, "a").await;
    let answers = [watches.next().await, watches.next().await];
    assert_eq!(answers.each_ref().map(|answer| answer.watch_id), [0, 70]);
    let prev = answers[1].events[0].prev_kv.as_ref().unwrap();
    assert_eq!((prev.value.clone(), answers[0].events[0].prev_kv.clone()), (bytes("1"), None));

    watches.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 70 })).await;
    let canceled = watches.next().await;
    assert!(canceled.canceled && canceled.watch_id == 70 && canceled.compact_revision == 0);
    client.put("a", "2", 0).await;
    assert_eq!(watches.next().await.watch_id, 1);
    watches.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    let progress = watches.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 4));
    assert!(progress.events.is_empty());
    etcd.stop().await;
}

#[tokio::test]
async fn who_comes_too_late_is_told_from_where_to_begin() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value, 0).await;
    }
    client.kv.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let mut watches = Watches::open(&mut client).await;
    assert!(watches.create(on("a", 2)).await.created);
    let late = watches.next().await;
    assert!(late.canceled && late.events.is_empty(), "{late:?}");
    assert_eq!(late.compact_revision, 4);
    assert!(watches.create(on("a", late.compact_revision)).await.created);
    assert_eq!(shown(&watches.next().await), [(true, "3".to_owned(), 4)]);
    let read = client.kv.range(RangeRequest { revision: 3, ..under("a") }).await.unwrap_err();
    assert_eq!(read.code(), tonic::Code::OutOfRange);
    assert_eq!(read.message(), "etcdserver: mvcc: required revision has been compacted");
    etcd.stop().await;
}

#[tokio::test]
async fn a_watcher_far_behind_gets_all_in_pieces_and_stops_no_other() {
    const COUNT: usize = 5000;
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let puts = (0..COUNT).map(|number| {
        let mut client = client.clone();
        async move { client.put(&format!("k/{number:05}"), "x", 0).await }
    });
    futures_util::future::join_all(puts).await;
    let mut watches = Watches::open(&mut client).await;
    let all = WatchCreateRequest { range_end: end_of("k/"), ..on("k/", 2) };
    assert!(watches.create(all).await.created);
    let (mut heard, mut answers, mut last) = (0, 0, 1);
    while heard < COUNT {
        let answer = watches.next().await;
        for event in &answer.events {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            assert_eq!(revision, last + 1, "an event is missing or out of order");
            last = revision;
        }
        assert!(answer.header.unwrap().revision >= last);
        (heard, answers) = (heard + answer.events.len(), answers + 1);
    }
    assert!((2..=COUNT).contains(&answers), "{answers} answers");
    etcd.stop().await;
}

#[tokio::test]
async fn a_shutdown_ends_watches() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let mut watches = Watches::open(&mut client).await;
    assert!(watches.create(on("a", 0)).await.created);
    etcd.stop().await;
    let end = within("the end", watches.answers.message()).await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}
