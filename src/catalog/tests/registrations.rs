//! What a registration changes, keeps and refuses.

use super::*;

fn checks_of(catalog: &Catalog, id: &str) -> Vec<(String, CheckStatus, String)> {
    let entry = catalog.instance(&n1(), &instance(id)).unwrap();
    let of_instance = entry.checks.iter().filter(|record| record.check.instance.is_some());
    of_instance.map(|r| (r.check.id.clone(), r.check.status, r.check.output.clone())).collect()
}

fn row(id: &str, status: CheckStatus, output: &str) -> (String, CheckStatus, String) {
    (id.to_owned(), status, output.to_owned())
}

#[tokio::test]
async fn a_known_check_keeps_its_status_and_an_unlisted_one_goes() {
    let c = open().await;
    let mut web = plain("web", "web-1");
    web.checks.push(check("second", CheckStatus::Critical));
    add(&c, &web).await;
    report(&c, "service:web-1", CheckStatus::Warning, "slow").await;
    web.checks[0].notes = "changed".to_owned();
    web.checks[1] = check("third", CheckStatus::Critical);
    add(&c, &web).await;
    let expected =
        [row("service:web-1", CheckStatus::Warning, "slow"), row("third", CheckStatus::Critical, "")];
    assert_eq!(checks_of(&c, "web-1"), expected);
}

#[tokio::test]
async fn a_registration_with_a_result_brings_it_and_maintenance_outlives_it() {
    let c = open().await;
    let mut web = expand(&plain("web", "web-1"));
    c.register(web.clone(), Owner::Permanent, Unlisted::Remove).await.unwrap();
    let mut maintenance = web[0].checks[0].clone();
    maintenance.id = "_service_maintenance:web-1".to_owned();
    maintenance.type_name = "maintenance".to_owned();
    maintenance.status = CheckStatus::Critical;
    c.put_check(&maintenance).await.unwrap();
    web[0].checks[0].status = CheckStatus::Warning;
    web[0].checks[0].output = "seen".to_owned();
    c.register(web, Owner::Permanent, Unlisted::Remove).await.unwrap();
    let expected = [
        row("_service_maintenance:web-1", CheckStatus::Critical, ""),
        row("service:web-1", CheckStatus::Warning, "seen"),
    ];
    assert_eq!(checks_of(&c, "web-1"), expected);
    assert!(c.delete_check(&n1(), &maintenance.id).await.unwrap());
    assert!(!c.delete_check(&n1(), &maintenance.id).await.unwrap());
    assert_eq!(c.instance(&n1(), &instance("web-1")).unwrap().status(), CheckStatus::Warning);
}

#[tokio::test]
async fn an_output_alone_is_kept_but_not_written() {
    let c = open().await;
    add(&c, plain("web", "web-1")).await;
    let before = c.position();
    let long = "x".repeat(10_000);
    report(&c, "service:web-1", CheckStatus::Passing, &long).await;
    assert_eq!(c.position(), before);
    let kept = &checks_of(&c, "web-1")[0].2;
    assert!(kept.starts_with("xxx") && kept.ends_with("(captured 4096 of 10000 bytes)"));
    assert_eq!(add(&c, plain("web", "web-1")).await, before.revision);
    assert_eq!(&checks_of(&c, "web-1")[0].2, kept, "and outlives a registration");
}

#[tokio::test]
async fn unknown_checks_are_named_after_the_known_ones_were_taken() {
    let c = open().await;
    add(&c, plain("web", "web-1")).await;
    let result = |id: &str| CheckReport {
        id: id.to_owned(),
        status: CheckStatus::Critical,
        output: "down".to_owned(),
    };
    let reports = vec![result("nope"), result("service:web-1"), result("serfHealth")];
    let answer = c.report_checks(&n1(), reports).await;
    assert!(matches!(&answer, Err(CatalogError::NoCheck(id)) if id == "nope"), "{answer:?}");
    assert_eq!(checks_of(&c, "web-1"), [row("service:web-1", CheckStatus::Critical, "down")]);
}

#[tokio::test]
async fn the_sidecar_goes_with_its_application_unless_it_stands_for_another() {
    let c = open().await;
    add(&c, meshed("web", "web-1")).await;
    let mut foreign = meshed("web", "web-2");
    foreign.sidecar.as_mut().unwrap().name = Some(service("edge"));
    let mut foreign = expand(&foreign);
    foreign[1].instance.proxy.as_mut().unwrap().destination_id = instance("other");
    c.register(foreign, Owner::Permanent, Unlisted::Remove).await.unwrap();
    assert!(remove(&c, "web-1").await);
    assert!(remove(&c, "web-2").await);
    assert!(!remove(&c, "web-2").await);
    let left: Vec<_> = c.instances_on(&n1()).iter().map(|r| r.instance.id.to_string()).collect();
    assert_eq!(left, ["web-2-sidecar-proxy"]);
}

#[tokio::test]
async fn a_check_id_belongs_to_its_latest_owner() {
    let c = open().await;
    let mut first = plain("web", "web-1");
    first.checks = vec![check("shared", CheckStatus::Critical)];
    let mut second = plain("web", "web-2");
    second.checks = vec![check("shared", CheckStatus::Passing)];
    add(&c, &first).await;
    add(&c, &second).await;
    assert_eq!(checks_of(&c, "web-1"), []);
    assert_eq!(checks_of(&c, "web-2"), [row("shared", CheckStatus::Passing, "")]);
    remove(&c, "web-1").await;
    assert_eq!(checks_of(&c, "web-2").len(), 1);
}

#[tokio::test]
async fn services_are_listed_with_all_their_tags_and_found_in_any_case() {
    let c = open().await;
    let mut one = plain("Web", "web-1");
    one.tags = vec!["a".to_owned(), "b".to_owned()];
    let mut two = plain("web", "web-2");
    two.tags = vec!["b".to_owned(), "c".to_owned()];
    add(&c, &one).await;
    add(&c, &two).await;
    let tags: Vec<_> = c.services().into_values().flatten().collect();
    assert_eq!(tags, ["a", "b", "c"]);
    assert_eq!(c.health(&service("WEB")).len(), 2);
}

#[tokio::test]
async fn what_cannot_be_right_is_refused_with_a_reason() {
    let c = open().await;
    let base = expand(&meshed("web", "web-1"));
    let broken = |change: &dyn Fn(&mut Vec<Registration>)| {
        let mut all = base.clone();
        change(&mut all);
        all
    };
    let cases = [
        ("no port", broken(&|all| all[1].instance.port = 0)),
        ("says nothing of its proxy", broken(&|all| all[1].instance.proxy = None)),
        ("is no sidecar", broken(&|all| all[0].instance.proxy.clone_from(&base[1].instance.proxy))),
        ("registered twice", broken(&|all| all.push(base[0].clone()))),
        ("used twice", broken(&|all| all[0].checks.push(base[0].checks[0].clone()))),
        ("not about it", broken(&|all| all[0].checks[0].instance = None)),
        ("not usable", broken(&|all| all[0].checks[0].id = String::new())),
        ("has 65 checks", broken(&|all| all[0].checks = vec![base[0].checks[0].clone(); 65])),
        ("at most 65536", broken(&|all| all[0].instance.tags = vec!["x".repeat(70_000)])),
        ("257 instances", vec![base[0].clone(); 257]),
    ];
    for (reason, registrations) in cases {
        let answer = c.register(registrations, Owner::Permanent, Unlisted::Remove).await.unwrap_err();
        assert!(answer.to_string().contains(reason), "{reason:?} is not in {answer}");
    }
    assert!(c.services().is_empty(), "nothing was written");
    let missing = Check { instance: Some((instance("x"), service("x"))), ..base[0].checks[0].clone() };
    assert!(matches!(c.put_check(&missing).await, Err(CatalogError::NoInstance(_))));
}

#[tokio::test]
async fn an_intention_keeps_its_id_and_the_list_its_order() {
    let c = open().await;
    let first = allow(&c, "web", "db", Action::Allow).await;
    let second = allow(&c, "WEB", "db", Action::Deny).await;
    assert_eq!((&second.id, second.created_ms), (&first.id, first.created_ms));
    assert_eq!(second.action, Action::Deny);
    for (source, destination) in [("*", "*"), ("*", "db"), ("a", "*"), ("a", "z")] {
        allow(&c, source, destination, Action::Allow).await;
    }
    let order: Vec<_> =
        c.intentions().iter().map(|(i, ..)| format!("{}>{}", i.source, i.destination)).collect();
    assert_eq!(order, ["a>z", "WEB>db", "*>db", "a>*", "*>*"]);
    assert!(!c.decide(&service("web"), &service("db")).is_allowed());
    assert!(c.delete_intention(&party("web"), &party("DB")).await.unwrap());
    assert!(c.decide(&service("web"), &service("db")).is_allowed());
    assert!(!c.delete_intention(&party("web"), &party("db")).await.unwrap());
    assert_eq!(c.rules().iter().count(), 4);
}
