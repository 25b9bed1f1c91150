//! Writes that were planned before another write came in between: the store has to refuse them.

use super::*;
use crate::catalog::plan;
use crate::catalog::state::State;

/// Plans on the state of now, lets another write happen, and commits the plan.
async fn overtaken<F: Future>(
    store: &MemoryStore,
    catalog: &Catalog,
    plan: impl Fn(&State) -> Txn,
    other: F,
) -> Outcome {
    let txn = plan(&catalog.shared.read().state);
    assert!(!txn.ops.is_empty(), "the plan does something");
    other.await;
    store.commit(txn).await.unwrap()
}

async fn setup() -> (Arc<MemoryStore>, Catalog, LeaseId) {
    let store = Arc::new(MemoryStore::new());
    let catalog = open_on(&store).await;
    let lease = catalog.grant_lease(Duration::from_secs(60)).await.unwrap();
    catalog
        .register(expand(&meshed("web", "web-1")), Owner::Lease(lease), Unlisted::Remove)
        .await
        .unwrap();
    (store, catalog, lease)
}

fn extra_check() -> Check {
    let mut check = expand(&plain("web", "web-1"))[0].checks[0].clone();
    check.id = "extra".to_owned();
    check
}

#[tokio::test]
async fn removing_an_instance_leaves_no_check_that_came_meanwhile() {
    let deregister = |state: &State| plan::deregister(state, &n1(), &instance("web-1")).txn;
    let (store, c, _) = setup().await;
    assert_eq!(overtaken(&store, &c, deregister, c.put_check(&extra_check())).await, Outcome::Conflict);
    let (store, c, lease) = setup().await;
    let mut more = plain("web", "web-1");
    more.checks.push(check("more", CheckStatus::Passing));
    let register = c.register(expand(&more), Owner::Lease(lease), Unlisted::Remove);
    assert_eq!(overtaken(&store, &c, deregister, register).await, Outcome::Conflict);
}

#[tokio::test]
async fn removing_an_application_leaves_no_sidecar_that_came_meanwhile() {
    let (store, c, _) = setup().await;
    add(&c, plain("db", "db-1")).await;
    let deregister = |state: &State| plan::deregister(state, &n1(), &instance("db-1")).txn;
    assert_eq!(
        overtaken(&store, &c, deregister, add(&c, meshed("db", "db-1"))).await,
        Outcome::Conflict
    );
}

#[tokio::test]
async fn nothing_comes_under_a_lease_that_has_ended() {
    let (store, c, lease) = setup().await;
    let all = expand(&plain("web", "web-2"));
    let register =
        |state: &State| plan::register(state, &all, Owner::Lease(lease), Unlisted::Remove).unwrap().txn;
    assert_eq!(overtaken(&store, &c, register, c.revoke_lease(lease)).await, Outcome::Conflict);
}

#[tokio::test]
async fn a_lease_that_ends_takes_nothing_that_found_another_owner() {
    let (store, c, lease) = setup().await;
    let end = |state: &State| plan::end_lease(state, lease).txn;
    assert_eq!(overtaken(&store, &c, end, add(&c, meshed("web", "web-1"))).await, Outcome::Conflict);
}

#[tokio::test]
async fn a_result_does_not_bring_back_a_check_that_went() {
    let (store, c, _) = setup().await;
    let status = CheckStatus::Critical;
    let id = "service:web-1".to_owned();
    let results = [CheckReport { id, status, output: String::new() }];
    let report = |state: &State| plan::report(state, &n1(), &results).unwrap().txn;
    assert_eq!(overtaken(&store, &c, report, remove(&c, "web-1")).await, Outcome::Conflict);
}

#[tokio::test]
async fn of_two_first_registrations_one_is_planned_anew() {
    let (store, c, _) = setup().await;
    let all = expand(&plain("api", "api-1"));
    let register =
        |state: &State| plan::register(state, &all, Owner::Permanent, Unlisted::Remove).unwrap().txn;
    assert_eq!(overtaken(&store, &c, register, add(&c, plain("api", "api-1"))).await, Outcome::Conflict);
}
