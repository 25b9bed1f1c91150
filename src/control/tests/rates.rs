//! Who runs dry, and who does not.

use std::sync::Arc;
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_bucket_gives_its_burst_then_its_rate() {
    let start = Instant::now();
    let mut bucket = Bucket::full(Rate { burst: 3, per_second: 2 }, start);
    let taken = |bucket: &mut Bucket, now| (0..10).filter(|_| bucket.take(now)).count();
    assert_eq!(taken(&mut bucket, start), 3);
    assert_eq!(taken(&mut bucket, start + SECOND), 2);
    assert!(!bucket.is_full(start + 2 * SECOND) && bucket.is_full(start + 3 * SECOND));
    assert_eq!(taken(&mut bucket, start + 100 * SECOND), 3, "no more than the burst");
    assert_eq!(taken(&mut bucket, start), 0, "a clock that stands gives nothing");
}

#[test]
fn a_sidecar_that_renews_without_end_holds_up_nobody_else() {
    let (rates, start) = (Rates::new(Instant::now()), Instant::now());
    let taken = (0..1000).filter(|_| rates.renew("thief", start).is_ok()).count();
    assert_eq!(taken, RENEW_SIDECAR.burst as usize);
    assert_eq!(rates.renew("thief", start), Err("renew_sidecar"));
    assert_eq!(rates.renew("other", start), Ok(()));
}

#[test]
fn a_storm_of_newcomers_takes_no_renewal() {
    let (rates, start) = (Rates::new(Instant::now()), Instant::now());
    let source = ip("10.0.0.1");
    let mut services = (0..).map(|number| name(&format!("s{number}")));
    let mut taken = 0;
    while let Some(service) = services.next()
        && rates.may_enrol(&service, source, start).is_ok()
    {
        rates.enrolled(&service, start);
        taken += 1;
    }
    assert_eq!(taken, ENROL_ALL.burst);
    assert_eq!(rates.may_enrol(&name("web"), source, start), Err("enrol_all"));
    assert_eq!(rates.renew("web's", start), Ok(()));
    assert_eq!(rates.may_enrol(&name("web"), source, start + SECOND), Ok(()));
}

#[test]
fn without_a_token_only_the_own_address_runs_dry() {
    let (rates, start) = (Rates::new(Instant::now()), Instant::now());
    let (web, attacker) = (name("web"), ip("2001:db8::1"));
    let mut tries = 0;
    while rates.may_enrol(&web, attacker, start).is_ok() {
        rates.refused(attacker, start);
        tries += 1;
    }
    assert_eq!(tries, REFUSED_SOURCE.burst);
    let neighbour = ip("2001:db8::ffff:1");
    assert_eq!(rates.may_enrol(&web, neighbour, start), Err("enrol_refused_source"), "the same /64");
    for honest in [ip("10.0.0.2"), ip("2001:db8:0:1::1"), ip("::ffff:10.0.0.3")] {
        assert_eq!(rates.may_enrol(&web, honest, start), Ok(()), "{honest}");
    }
    assert_eq!(rates.may_enrol(&web, attacker, start + SECOND), Ok(()), "it refills");
}

#[test]
fn a_service_has_its_own_limit() {
    let (rates, start) = (Rates::new(Instant::now()), Instant::now());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    rates.listen(move |limit| told.lock().unwrap().push(limit));
    for _ in 0..ENROL_SERVICE.burst {
        rates.enrolled(&name("web"), start);
    }
    assert_eq!(rates.may_enrol(&name("WEB"), ip("10.0.0.1"), start), Err("enrol_service"));
    assert_eq!(rates.may_enrol(&name("db"), ip("10.0.0.1"), start), Ok(()));
    assert_eq!(*heard.lock().unwrap(), ["enrol_service"]);
}

#[test]
fn memory_is_bounded_and_full_buckets_are_forgotten() {
    let start = Instant::now();
    let mut table = Table::new(Rate { burst: 2, per_second: 1 }, start);
    for number in 0..MAX_RATED {
        assert!(table.take(&number, start));
    }
    // Those beyond share one bucket.
    assert!(table.take(&(MAX_RATED + 1), start) && table.take(&(MAX_RATED + 2), start));
    assert!(!table.take(&(MAX_RATED + 3), start) && !table.has(&(MAX_RATED + 4), start));
    assert!(table.take(&0, start), "who is known keeps its own");
    assert_eq!(table.buckets.len(), MAX_RATED);
    assert!(table.take(&(MAX_RATED + 5), start + SECOND));
    assert_eq!(table.buckets.len(), 2, "the rest is full again, but for number 0");
}
