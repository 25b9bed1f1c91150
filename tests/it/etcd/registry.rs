//! The registry pattern over etcd, call for call as Go's `clientv3` makes them.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft::etcd::EtcdError;
use weft::pb::etcd::etcdserverpb::watch_request::RequestUnion;
use weft::pb::etcd::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, WatchCreateRequest, WatchRequest,
};
use weft::pb::etcd::mvccpb::event::EventType;

use super::*;
use crate::pace::{look_again, throughout};

const VALUE: &str = r#"{"address": "10.0.0.1:8080", "port": 8080}"#;

fn instance_1() -> Vec<(String, String, u16)> {
    vec![("instance-1".to_owned(), "10.0.0.1".to_owned(), 8080)]
}

#[tokio::test]
async fn etcd_service_discovery_registration() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let granted = client.lease.lease_grant(LeaseGrantRequest { ttl: 30, id: 0 }).await.unwrap();
    let lease = granted.into_inner();
    assert!(lease.id > 0 && lease.ttl == 30 && lease.error.is_empty(), "{lease:?}");
    client.put("/services/user-service/instance-1", VALUE, lease.id).await;
    let (requests, outgoing) = mpsc::channel(4);
    let kept = client.lease.lease_keep_alive(ReceiverStream::new(outgoing)).await.unwrap();
    let mut kept = kept.into_inner();
    for _ in 0..3 {
        requests.send(LeaseKeepAliveRequest { id: lease.id }).await.unwrap();
        let answer = within("the renewal", kept.message()).await.unwrap().unwrap();
        assert_eq!((answer.id, answer.ttl), (lease.id, 30));
    }
    requests.send(LeaseKeepAliveRequest { id: 404 }).await.unwrap();
    assert_eq!(kept.message().await.unwrap().unwrap().ttl, 0, "there is no such lease");
    eventually("the instance", || etcd.instances("user-service") == instance_1()).await;

    let left = LeaseTimeToLiveRequest { id: lease.id, keys: true };
    let left = client.lease.lease_time_to_live(left).await.unwrap().into_inner();
    assert!((28..=30).contains(&left.ttl) && left.granted_ttl == 30, "{left:?}");
    assert_eq!(left.keys, [bytes("/services/user-service/instance-1")]);
    let leases = client.lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(leases.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [lease.id]);

    // Deregister.
    let key = bytes("/services/user-service/instance-1");
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    assert_eq!(client.kv.delete_range(delete).await.unwrap().into_inner().deleted, 1);
    eventually("its end", || etcd.instances("user-service").is_empty()).await;
    client.lease.lease_revoke(LeaseRevokeRequest { id: lease.id }).await.unwrap();
    let again = client.lease.lease_revoke(LeaseRevokeRequest { id: lease.id }).await.unwrap_err();
    assert_eq!(again.code(), tonic::Code::NotFound);
    assert_eq!(again.message(), "etcdserver: requested lease not found");
    etcd.stop().await;
}

#[tokio::test]
async fn etcd_service_discovery_discovery_with_watch() {
    let etcd = Etcd::start().await;
    let (mut writer, mut reader) = (etcd.client().await, etcd.client().await);
    let prefix = "/services/user-service/";
    writer.put("/services/user-service/1", VALUE, 0).await;
    // Initial fetch, then a watch of the prefix from now on.
    assert_eq!(reader.prefix(prefix).await.len(), 1);
    let create = WatchCreateRequest {
        key: bytes(prefix),
        range_end: end_of(prefix),
        ..WatchCreateRequest::default()
    };
    let (requests, outgoing) = mpsc::channel(4);
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(create).await.unwrap();
    let mut watch = reader.watch.watch(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let created = within("the watch", watch.message()).await.unwrap().unwrap();
    assert!(created.created && !created.canceled && created.events.is_empty(), "{created:?}");

    let granted = writer.lease.lease_grant(LeaseGrantRequest { ttl: 30, id: 0 }).await.unwrap();
    let lease = granted.into_inner().id;
    let revision = writer.put("/services/user-service/2", VALUE, lease).await;
    writer.put("/services/other/1", VALUE, 0).await; // not what is watched
    let seen = within("the put", watch.message()).await.unwrap().unwrap();
    assert_eq!((seen.watch_id, seen.events.len()), (created.watch_id, 1));
    assert!(seen.header.unwrap().revision >= revision);
    assert_eq!(seen.events[0].r#type(), EventType::Put);
    let kv = seen.events[0].kv.clone().unwrap();
    assert_eq!((kv.key, kv.lease, kv.version), (bytes("/services/user-service/2"), lease, 1));
    assert_eq!(reader.prefix(prefix).await.len(), 2);

    writer.lease.lease_revoke(LeaseRevokeRequest { id: lease }).await.unwrap();
    let seen = within("the delete", watch.message()).await.unwrap().unwrap();
    assert_eq!(seen.events[0].r#type(), EventType::Delete);
    assert_eq!(seen.events[0].kv.clone().unwrap().key, bytes("/services/user-service/2"));
    assert_eq!(reader.prefix(prefix).await.len(), 1);
    etcd.stop().await;
}

#[tokio::test]
async fn a_dead_holder_is_gone_a_second_after_its_ttl() {
    const TTL_S: i64 = 2;
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let granted = client.lease.lease_grant(LeaseGrantRequest { ttl: TTL_S, id: 0 }).await.unwrap();
    let lease = granted.into_inner();
    let granted = Instant::now();
    client.put("/services/user-service/instance-1", VALUE, lease.id).await;
    drop(client);
    eventually("the instance", || etcd.instances("user-service") == instance_1()).await;
    eventually("its end", || etcd.instances("user-service").is_empty()).await;
    let took = granted.elapsed();
    println!("gone {took:?} after the last sign of life, with a TTL of {TTL_S} s");
    let ttl = Duration::from_secs(lease.ttl.try_into().unwrap());
    assert!(took >= ttl && took <= ttl + Duration::from_secs(1), "{took:?}");
    etcd.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_deregisters_nobody() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 3, id: 42 }).await.unwrap();
    client.put("/services/user-service/instance-1", VALUE, 42).await;
    eventually("the instance", || etcd.instances("user-service") == instance_1()).await;
    throughout(Duration::from_secs(2)).await; // most of the period is over
    let store = etcd.stop().await;
    let etcd = Etcd::over(store).await;
    let back = Instant::now();
    let mut client = etcd.client().await;
    while back.elapsed() < Duration::from_millis(2500) {
        assert_eq!(etcd.instances("user-service"), instance_1(), "after {:?}", back.elapsed());
        look_again().await;
    }
    let (requests, outgoing) = mpsc::channel(1);
    requests.send(LeaseKeepAliveRequest { id: 42 }).await.unwrap();
    let kept = client.lease.lease_keep_alive(ReceiverStream::new(outgoing)).await.unwrap();
    assert_eq!(kept.into_inner().message().await.unwrap().unwrap().ttl, 3, "its holder is back");
    etcd.stop().await;
}

#[tokio::test]
async fn other_hosts_are_refused_at_the_start() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let etcd = Etcd::over(Arc::clone(&store)).await;
    let keys = Keys::open(store).await.unwrap();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let listener = socket::listen(address.parse().unwrap()).unwrap();
        let refused = Server::new(listener, None, keys.clone(), &etcd.catalog);
        let refused = refused.err().unwrap();
        assert!(matches!(refused, EtcdError::NotLoopback(_)), "{refused}");
        assert!(refused.to_string().contains("loopback only"), "{refused}");
    }
    etcd.stop().await;
}

#[tokio::test]
async fn the_program_says_why_it_does_not_start() {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["server", "--memory", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
        .args(["--etcd-addr", "0.0.0.0:0"])
        .env_clear()
        .kill_on_drop(true)
        .output();
    let ended = within("the end of the program", run).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success(), "{said}");
    assert!(said.contains("loopback only, not on 0.0.0.0:"), "{said}");
    assert!(said.contains("--etcd-client-ca-file"), "{said}");
}
