//! Renewals by table, two holders of one key, and what becomes of old records.

use super::*;
use crate::store::MemoryStore;

const WEB: &str = "spiffe://t.consul/ns/default/dc/dc1/svc/web";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn web() -> SpiffeId {
    SpiffeId::parse(WEB).unwrap()
}

fn id(byte: u8) -> EnrolmentId {
    EnrolmentId::new([byte; 8])
}

fn claim<'a>(identity: &'a SpiffeId, key_sha256: &'a str, now: u64) -> Claim<'a> {
    Claim { identity, key_sha256, not_after: at(now + 100), now: at(now) }
}

fn record(generation: u32, key: &str) -> Record {
    Record { identity: web(), generation, key_sha256: key.to_owned(), not_after: 500 }
}

/// The generation afterwards, and how it was granted.
fn renew(record: Option<&Record>, shown: u32, key: &str) -> Result<(u32, Granted), Refusal> {
    let (web, shown) = (web(), Serial { enrolment: id(1), generation: shown });
    let renewed = Record::renew(record, shown, &claim(&web, key, 300));
    renewed.map(|(record, granted)| (record.generation, granted))
}

#[test]
fn renewals_by_table() {
    let held = record(5, "k5");
    let stale = |generation| Err(Refusal::Stale { generation, held: 5 });
    for (record, shown, key, want) in [
        (Some(&held), 5, "k6", Ok((6, Granted::Renewed))),
        // The answer to the last renewal was lost.
        (Some(&held), 4, "k5", Ok((5, Granted::Again))),
        (Some(&held), 4, "k6", stale(4)),
        (Some(&held), 3, "k5", stale(3)),
        (Some(&held), 1, "k6", stale(1)),
        // The server's memory is older than the certificate: a backup was restored.
        (Some(&held), 7, "k8", Ok((8, Granted::Renewed))),
        (None, 3, "k4", Ok((4, Granted::Adopted))),
        (Some(&held), 0, "k6", Err(Refusal::NotEnrolled)),
        (None, 0, "k6", Err(Refusal::NotEnrolled)),
        (None, u32::MAX, "k6", Err(Refusal::NotEnrolled)),
    ] {
        assert_eq!(renew(record, shown, key), want, "{shown} {key}");
    }
    let foreign = Record { identity: SpiffeId::parse(&WEB.replace("web", "db")).unwrap(), ..held };
    assert_eq!(renew(Some(&foreign), 5, "k6"), Err(Refusal::Foreign));
}

#[test]
fn a_record_lives_as_long_as_any_certificate_of_its_enrolment() {
    let held = record(5, "k5");
    let (web, shown) = (web(), Serial { enrolment: id(1), generation: 5 });
    let (shorter, _) = Record::renew(Some(&held), shown, &claim(&web, "k6", 300)).unwrap();
    assert_eq!(shorter.not_after, 500, "the older certificate lives longer");
    let (longer, _) = Record::renew(Some(&held), shown, &claim(&web, "k6", 450)).unwrap();
    assert_eq!(longer.not_after, 550);
    let day = KEPT_AFTER_EXPIRY.as_secs();
    assert!(!held.is_dead(at(499 + day)) && held.is_dead(at(500 + day)));
}

#[tokio::test]
async fn of_two_holders_the_second_is_refused() {
    let (store, enrolments, web) = (MemoryStore::new(), Enrolments::new(), web());
    let first = enrolments.begin(&store, id(1), &claim(&web, "k1", 0)).await.unwrap();
    let again = enrolments.begin(&store, id(1), &claim(&web, "k1", 1)).await.unwrap();
    assert_eq!((first, again), (1, 1), "the same key may ask again");
    let shown = |generation| Serial { enrolment: id(1), generation };
    let renew = async |generation, key: &'static str| {
        enrolments.renew(&store, shown(generation), &claim(&web, key, 10)).await
    };
    assert_eq!(renew(1, "thief").await.unwrap(), (2, Granted::Renewed));
    let refused = renew(1, "rightful").await.unwrap_err();
    assert!(refused.to_string().contains("renewed before with another key"), "{refused}");
    // What came first goes on, and its lost answers are repeated; the other stays out.
    assert_eq!(renew(1, "thief").await.unwrap(), (2, Granted::Again));
    assert_eq!(renew(2, "thief's next").await.unwrap(), (3, Granted::Renewed));
    assert!(renew(1, "thief").await.is_err() && renew(1, "rightful").await.is_err());
    // A token and the first key begin anew, and outdate everybody.
    let anew = enrolments.begin(&store, id(1), &claim(&web, "k1", 20)).await.unwrap();
    assert_eq!(anew, 4);
    assert!(renew(3, "thief's third").await.is_err());
}

#[tokio::test]
async fn a_hundred_at_once_move_it_by_one() {
    let (store, enrolments, web) = (MemoryStore::new(), Enrolments::new(), web());
    enrolments.begin(&store, id(1), &claim(&web, "k1", 0)).await.unwrap();
    let shown = Serial { enrolment: id(1), generation: 1 };
    let keys: Vec<_> = (0..100).map(|number| format!("key {number}")).collect();
    let claims: Vec<_> = keys.iter().map(|key| claim(&web, key, 1)).collect();
    let renewals = claims.iter().map(|claim| enrolments.renew(&store, shown, claim));
    let granted = futures_util::future::join_all(renewals).await;
    assert_eq!(granted.iter().filter(|result| result.is_ok()).count(), 1);
}

#[tokio::test]
async fn expired_records_go_and_the_rest_is_bounded() {
    let (store, enrolments, web) = (MemoryStore::new(), Enrolments::new(), web());
    let put = |number: usize, not_after| {
        let key = format!("{PREFIX}{number:016x}");
        let record = Record { not_after, ..record(1, "k") };
        Op::Put { key, value: record.encode().unwrap().into() }
    };
    let day = KEPT_AFTER_EXPIRY.as_secs();
    let ops = (0..MAX_ENROLMENTS).map(|number| put(number, if number == 7 { 500 } else { 900 }));
    store.commit(Txn { conditions: Vec::new(), ops: ops.collect() }).await.unwrap();
    let full = enrolments.begin(&store, id(1), &claim(&web, "k1", 0)).await.unwrap_err();
    assert!(matches!(full, CaError::TooManyEnrolments), "{full}");
    // One has expired by now, which makes room for one.
    enrolments.begin(&store, id(1), &claim(&web, "k1", 600 + day)).await.unwrap();
    let full = enrolments.begin(&store, id(2), &claim(&web, "k2", 601 + day)).await.unwrap_err();
    assert!(matches!(full, CaError::TooManyEnrolments), "{full}");
}

#[tokio::test]
async fn serial_numbers_tell_enrolment_and_generation() {
    use crate::ca::{Ca, Settings};
    use crate::model::ServiceName;
    use crate::tls::KeyRequest;
    let settings = Settings {
        datacenter: "dc1".into(),
        server_id: "server-1".into(),
        leaf_ttl: Duration::from_secs(60),
    };
    let ca = Ca::open(std::sync::Arc::new(MemoryStore::new()), settings).await.unwrap();
    let csr = || KeyRequest::generate().unwrap().csr;
    let service = ServiceName::new("web").unwrap();
    let mut leaf = ca.admit(&service, &csr()).await.unwrap();
    let first = Serial::parse(&leaf.serial).unwrap();
    assert_eq!(first.generation, 1);
    for generation in 2..5 {
        leaf = ca.renew(&leaf.id, &leaf.serial, &csr()).await.unwrap();
        let serial = Serial::parse(&leaf.serial).unwrap();
        assert_eq!(serial, Serial { enrolment: first.enrolment, generation });
    }
    let handed_out = ca.issue(&leaf.id, &csr()).unwrap();
    assert_eq!(Serial::parse(&handed_out.serial).unwrap().generation, 0);
}
