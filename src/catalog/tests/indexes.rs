//! Which write moves which index, by Consul's table, and who is woken.

use super::*;

/// The topics a test looks at, by name.
fn topics() -> Vec<(&'static str, Topic)> {
    vec![
        ("a", Topic::Service(service("a"))),
        ("b", Topic::Service(service("b"))),
        ("none", Topic::Service(service("none"))),
        ("connect a", Topic::Connect(service("a"))),
        ("connect b", Topic::Connect(service("b"))),
        ("services", Topic::Services),
        ("nodes", Topic::Nodes),
        ("checks", Topic::Checks),
        ("intentions", Topic::Intentions),
    ]
}

/// The topics that a write moves.
async fn moved<T>(catalog: &Catalog, write: impl Future<Output = T>) -> Vec<&'static str> {
    let before: Vec<_> = topics().iter().map(|(_, topic)| catalog.index(topic)).collect();
    write.await;
    let moved = topics().into_iter().zip(before).filter(|((_, topic), old)| {
        let new = catalog.index(topic);
        assert!(new >= *old && new > 0, "{topic:?} went from {old} to {new}");
        new != *old
    });
    moved.map(|((name, _), _)| name).collect()
}

fn node_check(status: CheckStatus) -> Check {
    Check {
        node: n1(),
        id: "disk".to_owned(),
        name: "disk".to_owned(),
        notes: String::new(),
        status,
        output: String::new(),
        instance: None,
        type_name: String::new(),
        definition: None,
        shown: None,
    }
}

#[tokio::test]
async fn each_write_moves_the_indexes_of_its_own_results_only() {
    let c = open().await;
    let all_of_a = ["a", "connect a", "services", "checks"];
    assert_eq!(moved(&c, add(&c, meshed("a", "a-1"))).await, all_of_a);
    assert_eq!(moved(&c, add(&c, plain("b", "b-1"))).await, ["b", "services", "checks"]);
    let again = moved(&c, add(&c, meshed("a", "a-1"))).await;
    assert!(again.is_empty(), "the same again moved {again:?}");

    let flip = |id: &'static str, status| report(&c, id, status, "");
    let critical = CheckStatus::Critical;
    assert_eq!(moved(&c, flip("service:a-1", critical)).await, ["a", "checks"]);
    assert_eq!(moved(&c, flip("service:a-1-sidecar-proxy", critical)).await, ["connect a", "checks"]);
    let output = moved(&c, report(&c, "service:a-1", critical, "still down")).await;
    assert!(output.is_empty(), "an output moved {output:?}");

    let mut tagged = plain("b", "b-1");
    tagged.tags = vec!["v2".to_owned()];
    assert_eq!(moved(&c, add(&c, &tagged)).await, ["b", "services"]);

    let node_wide = ["a", "b", "connect a", "checks"];
    assert_eq!(moved(&c, c.put_check(&node_check(critical))).await, node_wide);
    let gone = moved(&c, c.delete_check(&n1(), "disk")).await;
    assert_eq!(gone, ["a", "b", "connect a", "services", "checks"]);

    assert_eq!(moved(&c, allow(&c, "a", "b", Action::Deny)).await, ["intentions"]);
    let again = moved(&c, allow(&c, "a", "b", Action::Deny)).await;
    assert!(again.is_empty(), "the same intention again moved {again:?}");
    assert_eq!(moved(&c, c.delete_intention(&party("A"), &party("b"))).await, ["intentions"]);
}

#[tokio::test]
async fn services_without_instances_share_the_extinction_index() {
    let c = open().await;
    add(&c, plain("a", "a-1")).await;
    add(&c, plain("b", "b-1")).await;
    add(&c, plain("b", "b-2")).await;
    let one_of_two = remove(&c, "b-1");
    assert_eq!(moved(&c, one_of_two).await, ["b", "services", "checks"]);
    let last = remove(&c, "b-2");
    assert_eq!(
        moved(&c, last).await,
        ["b", "none", "connect a", "connect b", "services", "checks"],
        "all that have no instance moved, the others did not"
    );
    assert_eq!(c.index(&Topic::Service(service("b"))), c.index(&Topic::Service(service("none"))));
    let unrelated = add(&c, plain("c", "c-1"));
    assert_eq!(moved(&c, unrelated).await, ["services", "checks"]);
    let b = c.index(&Topic::Service(service("b")));
    let revision = add(&c, plain("b", "b-3")).await;
    assert!(revision > b);
    assert_eq!(c.index(&Topic::Service(service("b"))), revision);
}

#[tokio::test]
async fn the_node_table_moves_only_with_nodes() {
    let c = open().await;
    let n2 = NodeName::new("n2").unwrap();
    let mut far = plain("far", "far-1");
    far.address = "10.0.0.2".to_owned();
    let put = |d: &Definition| c.register(d.expand(&n2, 0).unwrap(), Owner::Permanent, Unlisted::Remove);
    assert_eq!(moved(&c, put(&far)).await, ["services", "nodes", "checks"]);
    let node = c.nodes().into_iter().find(|node| node.name == n2).unwrap();
    assert_eq!((node.address.as_str(), node.id.len()), ("10.0.0.2", 36));
    far.tags = vec!["x".to_owned()];
    assert_eq!(moved(&c, put(&far)).await, ["services"]);
    far.address = "10.0.0.3".to_owned();
    assert_eq!(moved(&c, put(&far)).await, ["services", "nodes"]);
    assert!(moved(&c, c.deregister(&n2, &instance("far-1"))).await.contains(&"nodes"));
    assert_eq!(c.nodes().len(), 1, "a node without anything on it is gone");
}

#[tokio::test]
async fn indexes_do_not_go_backwards_over_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let before = open_on(&store).await;
    add(&before, plain("a", "a-1")).await;
    add(&before, plain("b", "b-1")).await;
    remove(&before, "b-1").await;
    let after = open_on(&store).await;
    for (name, topic) in topics() {
        assert!(after.index(&topic) >= before.index(&topic), "{name}");
    }
}

#[tokio::test]
async fn a_waiter_is_woken_by_its_topic_and_by_no_other() {
    let c = open().await;
    add(&c, plain("a", "a-1")).await;
    let topic = Topic::Service(service("a"));
    let index = c.index(&topic);
    assert_eq!(c.wait(&topic, index - 1, DEADLINE).await, index, "an older index is answered at once");
    let mut waiting = Box::pin(c.wait(&topic, index, DEADLINE));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("nothing has changed"),
        _ = add(&c, plain("b", "b-1")) => {}
    }
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("another service has changed"),
        () = report(&c, "service:a-1", CheckStatus::Passing, "output") => {}
    }
    let (woken, ()) = tokio::join!(waiting, report(&c, "service:a-1", CheckStatus::Critical, ""));
    assert_eq!(woken, c.index(&topic));
    assert!(woken > index);
}

#[tokio::test]
async fn a_waiter_for_an_unknown_service_is_woken_when_it_comes_or_another_goes() {
    let c = open().await;
    add(&c, plain("b", "b-1")).await;
    let topic = Topic::Service(service("a"));
    let index = c.index(&topic);
    let (woken, _) = tokio::join!(c.wait(&topic, index, DEADLINE), remove(&c, "b-1"));
    assert!(woken > index);
    let (came, revision) = tokio::join!(c.wait(&topic, woken, DEADLINE), add(&c, plain("a", "a-1")));
    assert_eq!(came, revision);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time_and_leaves_nothing_behind() {
    let c = open().await;
    let topic = Topic::Service(service("a"));
    let start = tokio::time::Instant::now();
    let index = c.wait(&topic, 1_000_000, Duration::from_secs(300)).await;
    assert_eq!(index, c.index(&topic), "a future index is waited for and then answered");
    assert_eq!(start.elapsed().as_secs(), 300);
    let cancelled = tokio::time::timeout(Duration::from_secs(1), c.wait(&topic, index, DEADLINE)).await;
    assert!(cancelled.is_err());
    assert_eq!(c.shared.waiters.len(), 0);
}

#[tokio::test]
async fn five_thousand_waiters_cost_little_and_all_wake() {
    let c = open().await;
    let topic = Topic::Service(service("a"));
    let index = c.index(&topic);
    let waiters: Vec<_> = (0..5000)
        .map(|_| {
            let (c, topic) = (c.clone(), topic.clone());
            tokio::spawn(async move { c.wait(&topic, index, DEADLINE).await })
        })
        .collect();
    while c.shared.waiters.is_empty() {
        tokio::task::yield_now().await;
    }
    let revision = add(&c, plain("a", "a-1")).await;
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), revision);
    }
    assert_eq!(c.shared.waiters.len(), 0);
}
