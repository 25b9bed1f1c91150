//! How much is said: limits, truncation, order, compression.

use std::collections::BTreeSet;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use weft::dns::{Domain, Outcome, Settings, Transport};

use super::world::World;
use super::{addresses, answer_to, outcome, question};

const NAME: &str = "big.service.consul.";

/// Sixty instances on nodes of their own, as in the captures.
fn big() -> World {
    let mut world = World::default();
    for number in 1..=60u16 {
        world.add_node(&format!("ext{number}"), &format!("10.77.0.{number}"), &[]);
        world.instance("big", &format!("big-{number}"), "", 8000 + number, |_, _| {});
    }
    world
}

/// Without metadata of nodes: those of the captures had none.
fn settings() -> Settings {
    let mut settings = Settings::new(Domain::new("consul").unwrap());
    settings.node_meta_txt = false;
    settings
}

/// Answers, additional records, TC, and bytes.
fn counts(
    world: &World,
    settings: &Settings,
    kind: RecordType,
    room: Option<u16>,
    transport: Transport,
) -> (usize, usize, bool, usize) {
    let (found, length) = answer_to(world, settings, &question(NAME, kind, room), transport);
    (found.answers.len(), found.additionals.len(), found.metadata.truncation, length)
}

#[test]
fn sizes_are_those_of_consul() {
    use RecordType::{A, SRV};
    use Transport::{Tcp, Udp};
    let world = big();
    let mut settings = settings();
    for honest in [true, false] {
        settings.enable_truncate = honest;
        for (kind, room, transport, expected) in [
            (A, None, Udp, (3, 0, honest, 84)),
            (A, Some(512), Udp, (3, 0, honest, 95)),
            (A, Some(100), Udp, (3, 0, honest, 95)),
            (A, Some(1232), Udp, (60, 0, false, 1007)),
            (A, Some(4096), Udp, (60, 0, false, 1007)),
            (A, Some(65_000), Udp, (60, 0, false, 1007)),
            (A, Some(1232), Tcp, (60, 0, false, 1007)),
            (A, None, Tcp, (60, 0, false, 996)),
            (SRV, Some(4096), Udp, (60, 60, false, 3458)),
            (SRV, Some(1232), Tcp, (60, 60, false, 3458)),
        ] {
            assert_eq!(counts(&world, &settings, kind, room, transport), expected, "{kind} {room:?}");
        }
        // Three targets of five or six characters: 201 to 207 bytes.
        let (answers, extras, truncated, length) = counts(&world, &settings, SRV, None, Udp);
        assert_eq!((answers, extras, truncated), (3, 3, honest));
        assert!((204..=207).contains(&length), "{length}");
        // What does not fit is left out, answers last.
        let (answers, extras, truncated, length) = counts(&world, &settings, SRV, Some(1232), Udp);
        // An address may fit where the next, longer answer did not.
        assert!(extras <= 2 && truncated == honest, "{extras} extras");
        assert!(answers >= 28 && length <= 1232, "{answers} answers in {length} bytes");
    }
}

#[test]
fn additional_records_give_way_without_a_word() {
    let world = big();
    let room = Some(2800);
    let (answers, extras, truncated, length) =
        counts(&world, &settings(), RecordType::SRV, room, Transport::Udp);
    assert!(answers == 60 && (1..60).contains(&extras) && !truncated && length <= 2800, "{extras}");
}

#[test]
fn every_record_that_is_left_in_is_whole() {
    let world = big();
    for room in (512..=4096).step_by(7) {
        let asked = question(NAME, RecordType::SRV, Some(room));
        // Reading it back fails if it ends in the middle of a record.
        let (found, length) = answer_to(&world, &settings(), &asked, Transport::Udp);
        assert!(length <= usize::from(room), "{length} bytes for {room}");
        assert_eq!(found.edns.unwrap().max_payload(), room);
        assert_eq!(found.metadata.truncation, found.answers.len() < 60, "{room}");
    }
}

#[test]
fn limits_of_settings() {
    let world = big();
    let mut settings = settings();
    settings.a_record_limit = Some(5);
    settings.udp_answer_limit = 5;
    for (room, transport) in
        [(None, Transport::Udp), (Some(4096), Transport::Udp), (None, Transport::Tcp)]
    {
        let (answers, _, truncated, _) = counts(&world, &settings, RecordType::A, room, transport);
        // It is a limit by choice: over TCP there would be no more.
        assert_eq!((answers, truncated), (5, false), "{room:?} {transport:?}");
    }
    let srv = counts(&world, &settings, RecordType::SRV, None, Transport::Udp);
    assert_eq!((srv.0, srv.1, srv.2), (5, 5, true));
    let srv = counts(&world, &settings, RecordType::SRV, None, Transport::Tcp);
    assert_eq!((srv.0, srv.2), (60, false));
    settings.udp_answer_limit = 60;
    settings.a_record_limit = None;
    assert_eq!(counts(&world, &settings, RecordType::A, None, Transport::Udp).0, 8);
    settings.compress = false;
    let (answers, _, _, length) = counts(&world, &settings, RecordType::A, None, Transport::Tcp);
    assert_eq!((answers, length), (60, 12 + 24 + 60 * (20 + 14)));
}

#[test]
fn every_answer_is_shuffled_anew() {
    let world = big();
    let mut first = BTreeSet::new();
    let mut told = BTreeSet::new();
    for _ in 0..300 {
        let asked = question(NAME, RecordType::A, None);
        let (found, _) = answer_to(&world, &settings(), &asked, Transport::Udp);
        first.insert(addresses(&found)[0].clone());
        told.extend(addresses(&found));
    }
    assert!(first.len() > 40, "only {} of 60 came first in 300 answers", first.len());
    assert_eq!(told.len(), 60);
}

#[test]
fn the_longest_answer_ends_at_64_kib() {
    let mut world = World::default();
    for number in 0..3000u16 {
        let address = format!("10.{}.{}.1", number / 250, number % 250);
        world.add_node(&format!("node-{number:04}"), &address, &[]);
        world.instance("big", &format!("big-{number}"), "", 80, |_, _| {});
    }
    let settings = settings();
    let (answers, _, truncated, length) =
        counts(&world, &settings, RecordType::SRV, None, Transport::Tcp);
    assert!(answers > 1000 && truncated && length <= 65_535, "{answers} in {length}");
    let (answers, _, truncated, length) = counts(&world, &settings, RecordType::A, None, Transport::Tcp);
    assert_eq!((answers, truncated, length), (3000, false, 12 + 24 + 16 * 3000));
}

#[test]
fn an_answer_can_be_cut_to_a_hint_at_tcp() {
    let asked = question(NAME, RecordType::SRV, Some(4096)).to_vec().unwrap();
    let Outcome::Reply(reply) = outcome(&big(), &settings(), &asked, Transport::Udp) else {
        panic!("no reply")
    };
    let whole = Message::from_vec(&reply.bytes).unwrap();
    let bytes = reply.cut();
    let cut = Message::from_vec(&bytes).unwrap();
    assert_eq!(bytes.len(), 12 + 20 + 4);
    assert_eq!((cut.queries, cut.metadata.id), (whole.queries, whole.metadata.id));
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.additionals.is_empty());
}

#[test]
fn the_same_answer_is_said_once_and_each_has_its_address() {
    let mut world = World::default();
    world.add_node("n1", "10.0.0.1", &[]);
    for number in 0..4u16 {
        world.instance("big", &format!("big-{number}"), "", 80 + number / 2, |_, _| {});
    }
    let (answers, extras, ..) = counts(&world, &settings(), RecordType::SRV, None, Transport::Tcp);
    assert_eq!((answers, extras), (2, 2));
    assert_eq!(counts(&world, &settings(), RecordType::A, None, Transport::Tcp).0, 1);
}
