//! Schedules and clocks with paused time, and one flow over real sockets.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};

use CheckStatus::{Critical, Passing, Warning};
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn definition(id: &str, kind: CheckKind) -> CheckDefinition {
    CheckDefinition {
        id: id.into(),
        name: format!("check {id}"),
        notes: String::new(),
        kind,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        initial: Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }
}

fn tcp(id: &str, address: &str) -> CheckDefinition {
    definition(
        id,
        CheckKind::Tcp { address: address.to_owned(), use_tls: false, tls_skip_verify: false },
    )
}

fn ttl(id: &str, seconds: u64) -> CheckDefinition {
    definition(id, CheckKind::Ttl { ttl: Duration::from_secs(seconds) })
}

fn web() -> InstanceId {
    InstanceId::new("web-1").unwrap()
}

/// Checks of instances, and nothing besides.
fn only<const N: usize>(checks: [(InstanceId, CheckDefinition); N]) -> Workload {
    let checks = checks.into_iter().map(|(instance, check)| (Some(instance), check)).collect();
    Workload { checks, ..Workload::default() }
}

fn report(id: &str, status: CheckStatus, output: &str) -> CheckReport {
    CheckReport { id: id.into(), status, output: output.into() }
}

fn shared_for(check: &CheckDefinition) -> Arc<Shared> {
    let mut board = Board::default();
    board.change(&[], [(Some(&web()), check)]);
    Arc::new(Shared { board: Mutex::new(board), news: Notify::new() })
}

#[tokio::test(start_paused = true)]
async fn the_first_run_is_at_once_and_the_rest_keep_the_interval() {
    let check = tcp("a", "unused:1");
    let shared = shared_for(&check);
    let start = Instant::now();
    let times = Mutex::new(Vec::new());
    let probe = || {
        let mut times = times.lock().unwrap();
        times.push(start.elapsed());
        ready((times.len() <= 20).then(|| (Passing, String::new())))
    };
    repeat(Arc::new(check), shared, probe).await;
    let times = times.into_inner().unwrap();
    assert_eq!(times[0], Duration::ZERO);
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (low, high) = (Duration::from_millis(8_990), Duration::from_millis(11_010));
    assert!(gaps.iter().all(|gap| (low..=high).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| gap != &gaps[0]), "the interval does not vary: {gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn thresholds_apply_and_only_changes_are_reported() {
    let mut check = tcp("a", "unused:1");
    check.failures_before_critical = 2;
    let shared = shared_for(&check);
    let results = [Passing, Critical, Passing, Critical, Critical, Critical, Passing];
    let run = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::new());
    let probe = || {
        seen.lock().unwrap().extend(shared.board().next_report().map(|r| r.status));
        let result = results.get(run.fetch_add(1, Ordering::Relaxed));
        ready(result.map(|result| (*result, String::new())))
    };
    repeat(Arc::new(check), Arc::clone(&shared), probe).await;
    assert_eq!(seen.into_inner().unwrap(), [Passing, Critical, Passing]);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_passes_only_while_it_is_fed() {
    let (sink, mut reports) = mpsc::channel(8);
    let runner = Runner::start(only([(web(), ttl("t", 30))]), sink);
    assert!(!runner.update_ttl("nope", Passing, ""));
    let start = Instant::now();
    assert!(runner.update_ttl("t", Passing, "fed"));
    assert_eq!(reports.recv().await.unwrap(), report("t", Passing, "fed"));
    sleep(Duration::from_secs(20)).await;
    assert!(runner.update_ttl("t", Passing, "fed again"));
    assert_eq!(reports.recv().await.unwrap(), report("t", Critical, "TTL expired"));
    assert_eq!(start.elapsed().as_secs(), 50);
    assert!(runner.update_ttl("t", Warning, "slow"));
    assert_eq!(reports.recv().await.unwrap(), report("t", Warning, "slow"));
}

#[tokio::test(start_paused = true)]
async fn a_ttl_that_is_never_fed_gets_its_full_time() {
    let (sink, mut reports) = mpsc::channel(8);
    let start = Instant::now();
    let _runner = Runner::start(only([(web(), ttl("t", 30))]), sink);
    assert_eq!(reports.recv().await.unwrap(), report("t", Critical, "TTL expired"));
    assert_eq!(start.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_full_sink_keeps_the_latest_and_delays_nobody() {
    let (sink, mut reports) = mpsc::channel(1);
    let checks = ["a", "b", "c"].map(|id| (web(), ttl(id, 1_000)));
    let runner = Runner::start(only(checks), sink);
    for (n, status) in [Passing, Warning, Critical, Passing, Warning].into_iter().enumerate() {
        for id in ["a", "b", "c"] {
            assert!(runner.update_ttl(id, status, &n.to_string()));
        }
        sleep(Duration::from_secs(1)).await;
    }
    // One report went into the channel before it was full; the rest is the latest state of each.
    let mut last = BTreeMap::new();
    let mut count = 0;
    while last.values().filter(|status| **status == Warning).count() < 3 {
        let report = timeout(DEADLINE, reports.recv()).await.unwrap().unwrap();
        last.insert(report.id, report.status);
        count += 1;
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn probes_aliases_and_dropping_work_over_real_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sink, mut reports) = mpsc::channel(8);
    let mut check = tcp("up", &address.to_string());
    check.interval = Duration::ZERO;
    let alias = definition("alias", CheckKind::Alias { service: Some(web()), node: None });
    let proxy = InstanceId::new("proxy-1").unwrap();
    let runner = Runner::start(only([(web(), check), (proxy, alias)]), sink);
    let mut last = BTreeMap::new();
    let mut wait_for = async |expected: &[(&str, CheckStatus)]| {
        while !expected.iter().all(|(id, status)| last.get(*id) == Some(status)) {
            let report = timeout(DEADLINE, reports.recv()).await.unwrap().unwrap();
            last.insert(report.id, report.status);
        }
    };
    wait_for(&[("up", Passing), ("alias", Passing)]).await;
    drop(listener);
    wait_for(&[("up", Critical), ("alias", Critical)]).await;
    drop(runner);
    assert!(timeout(DEADLINE, reports.recv()).await.unwrap().is_none(), "the tasks have ended");
}

#[tokio::test(start_paused = true)]
async fn replacing_disturbs_only_what_changed() {
    let (sink, mut reports) = mpsc::channel(8);
    let mut runner = Runner::start(only([(web(), ttl("kept", 30)), (web(), ttl("gone", 30))]), sink);
    let start = Instant::now();
    sleep(Duration::from_secs(20)).await;
    let kept = CheckDefinition { initial: Passing, ..ttl("kept", 30) };
    runner.replace(only([(web(), kept), (web(), ttl("new", 40))]));
    assert!(!runner.update_ttl("gone", Passing, ""));
    assert_eq!(reports.recv().await.unwrap(), report("kept", Critical, "TTL expired"));
    assert_eq!(start.elapsed().as_secs(), 30, "the period of a check that stays goes on");
    assert_eq!(reports.recv().await.unwrap(), report("new", Critical, "TTL expired"));
    assert_eq!(start.elapsed().as_secs(), 60);
    runner.replace(only([(web(), ttl("new", 5))]));
    assert_eq!(reports.recv().await.unwrap(), report("new", Critical, "TTL expired"));
    assert_eq!(start.elapsed().as_secs(), 65, "a changed definition starts anew");
    let quiet = timeout(Duration::from_secs(1_000), reports.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    runner.replace(only([(web(), ttl("new", 5))]));
    assert_eq!(runner.tasks.len(), 2, "one check and the forwarder");
}

proptest! {
    #[test]
    fn jitter_stays_within_its_part(interval_ms in 1_000u64..100_000_000, fraction in 0.0..1.0f64) {
        let interval = Duration::from_millis(interval_ms);
        let pause = jittered(interval, fraction);
        prop_assert!(pause >= interval * 899 / 1_000 && pause <= interval * 1_101 / 1_000);
    }
}
