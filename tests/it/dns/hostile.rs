//! Messages that lie, point in circles, ask for everything, or mean nothing.

use std::fs;
use std::path::Path;
use std::time::Instant;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use weft::dns::{Outcome, Transport};
use weft::net::rng::Rng;

use super::world::{World, check, settings};
use super::{outcome, question};
use crate::process::slow;

/// Questions for everything that answers are made of.
pub(crate) fn questions() -> Vec<Vec<u8>> {
    let names = [
        "web.service.consul.",
        "v1.web.service.consul.",
        "_web._tcp.service.consul.",
        "db.service.dc1.alt.example.",
        "cache.service.consul.",
        "six.service.consul.",
        "native.connect.consul.",
        "n1.node.consul.",
        "n2.lan.node.dc1.consul.",
        "0a000001.addr.consul.",
        "1.0.0.127.in-addr.arpa.",
        "web.default.svc.cluster.local.",
        "_http._tcp.web.default.svc.cluster.local.",
        "dns-version.cluster.local.",
        "db.internal.example.com.",
        "consul.",
        "example.com.",
    ];
    let kinds = [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::ANY, RecordType::SOA];
    let rooms = [None, Some(512), Some(1232), Some(65_535)];
    let all = names.iter().flat_map(|name| kinds.iter().map(move |kind| (*name, *kind)));
    let all = all.flat_map(|(name, kind)| rooms.iter().map(move |room| question(name, kind, *room)));
    all.map(|message| message.to_vec().unwrap()).collect()
}

/// Changes some bytes of a message: flips, cuts, repeats, and numbers that lie.
pub(crate) fn mutate(message: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        let length = message.len();
        if length == 0 {
            return;
        }
        let at = rng.below(length as u64) as usize;
        match rng.below(7) {
            0 => message[at] = rng.next_u64() as u8,
            1 => message[at] ^= 1 << rng.below(8),
            2 => message.truncate(at),
            3 => message.insert(at, rng.next_u64() as u8),
            // A pointer to anywhere, itself and what comes later included.
            4 => {
                message[at] = 0xc0 | rng.below(2) as u8;
                if let Some(next) = message.get_mut(at + 1) {
                    *next = rng.next_u64() as u8;
                }
            }
            // A count of records that are not there.
            5 => message[(5 + 2 * rng.below(4) as usize).min(length - 1)] = rng.next_u64() as u8,
            _ => {
                let piece = message[at..].to_vec();
                message.extend_from_slice(&piece);
            }
        }
    }
}

/// A million with WEFT_SLOW=1.
#[test]
fn mutated_questions_are_answered_within_limits_or_not_at_all() {
    let (world, settings, questions) = (World::full(), settings(true), questions());
    let rounds = if slow("970,000 of a million mutated questions") { 1_000_000 } else { 30_000 };
    let (mut rng, mut answered) = (Rng::from_seed(8600), 0);
    let started = Instant::now();
    for _ in 0..rounds {
        let mut message = questions[rng.below(questions.len() as u64) as usize].clone();
        mutate(&mut message, &mut rng);
        answered += usize::from(check(&world, &settings, &message));
    }
    println!("{rounds} messages in {:?}, {answered} answered with records", started.elapsed());
    // Mutations that break every message would prove little.
    assert!(answered > rounds / 25, "only {answered} of {rounds} were answered");
}

/// `UPDATE_EXPECTED=1` writes the questions into the corpus anew.
#[test]
fn the_corpus_keeps_its_promises() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/dns");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        for (name, bytes) in crafted() {
            fs::write(corpus.join(name), bytes).unwrap();
        }
    }
    let (world, settings) = (World::full(), settings(true));
    let (mut inputs, mut answered) = (0, 0);
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown when the oracle panics
        answered += usize::from(check(&world, &settings, &fs::read(&path).unwrap()));
        inputs += 1;
    }
    assert!(inputs >= 18 && answered >= 8, "{answered} of {inputs} inputs were answered");
}

/// Messages of which each is a lie of its own kind, and some that are none.
fn crafted() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |name: &str, kind, room| question(name, kind, room).to_vec().unwrap();
    let web = |room| bytes("web.service.consul.", RecordType::A, room);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = web(Some(1232));
        change(&mut message);
        message
    };
    vec![
        ("service-a", web(Some(1232))),
        ("service-a-without-edns", web(None)),
        ("service-srv", bytes("_web._tcp.service.consul.", RecordType::SRV, Some(4096))),
        ("service-any-65535", bytes("db.service.consul.", RecordType::ANY, Some(65_535))),
        ("node-txt", bytes("n1.node.consul.", RecordType::TXT, Some(1232))),
        ("address", bytes("20010db8000000000000000000000001.addr.consul.", RecordType::AAAA, None)),
        ("pointer-record", bytes("1.0.0.127.in-addr.arpa.", RecordType::PTR, None)),
        ("kubernetes", bytes("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, Some(1232))),
        ("cloud-map", bytes("db.internal.example.com.", RecordType::A, None)),
        ("soa", bytes("consul.", RecordType::SOA, Some(1232))),
        ("foreign", bytes("example.com.", RecordType::A, Some(1232))),
        ("answer", with(&|m| m[2] |= 0x80)),
        ("notify", with(&|m| m[2] |= 4 << 3)),
        ("two-questions-said", with(&|m| m[5] = 2)),
        ("no-question-said", with(&|m| m[5] = 0)),
        ("65535-records-said", with(&|m| m[6..12].fill(0xff))),
        ("pointer-to-itself", with(&|m| m[12..14].copy_from_slice(&[0xc0, 12]))),
        ("pointer-ahead", with(&|m| m[12..14].copy_from_slice(&[0xc0, 20]))),
        ("pointers-in-a-circle", with(&|m| m[12..16].copy_from_slice(&[0xc0, 14, 0xc0, 12]))),
        ("label-past-the-end", with(&|m| m[12] = 63)),
        ("header-only", with(&|m| m.truncate(12))),
        ("half-a-header", with(&|m| m.truncate(6))),
        ("edns-data-past-the-end", with(&|m| *m.last_mut().unwrap() = 0xff)),
        ("two-edns", {
            let mut message = web(Some(1232));
            let opt = message[message.len() - 11..].to_vec();
            message.extend(opt);
            message[11] = 2;
            message
        }),
    ]
}

proptest! {
    #[test]
    fn any_bytes_have_an_outcome(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let (world, settings) = (World::full(), settings(false));
        check(&world, &settings, &bytes);
    }

    #[test]
    fn any_name_has_an_outcome(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..63), 0..4),
        place in prop::sample::select(vec![
            "service.consul", "node.consul", "addr.consul", "connect.consul", "svc.cluster.local",
            "internal.example.com", "ip6.arpa", "in-addr.arpa", "consul",
        ]),
        kind in any::<u16>(),
    ) {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let tail = place.split('.').map(str::as_bytes);
        for label in labels.iter().map(Vec::as_slice).chain(tail) {
            message.push(label.len() as u8);
            message.extend_from_slice(label);
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        let (world, settings) = (World::full(), settings(false));
        check(&world, &settings, &message);
        // A name of at most 255 bytes is always answered, and the question comes back as it was.
        if let Outcome::Reply(reply) = outcome(&world, &settings, &message, Transport::Udp)
            && let (Ok(asked), Ok(found)) = (Message::from_vec(&message), Message::from_vec(&reply.bytes))
        {
            let spelt = |m: &Message| m.queries.iter().map(|q| q.name.to_string()).collect::<Vec<_>>();
            prop_assert_eq!(spelt(&asked), spelt(&found));
        } else {
            prop_assert!(message.len() > 255 + 4 + 12 || Message::from_vec(&message).is_err());
        }
    }

    #[test]
    fn no_answer_is_longer_than_its_client_can_take(
        name in prop::sample::select(vec!["web.service.consul.", "db.service.consul.", "db.internal.example.com."]),
        kind in prop::sample::select(vec![RecordType::A, RecordType::SRV, RecordType::ANY]),
        room in prop::option::of(0..=u16::MAX),
    ) {
        let (world, settings) = (World::full(), settings(false));
        let asked = question(name, kind, room).to_vec().unwrap();
        let Outcome::Reply(reply) = outcome(&world, &settings, &asked, Transport::Udp) else {
            panic!("no reply")
        };
        let most = room.unwrap_or(512).clamp(512, weft::dns::limits::MAX_UDP_ANSWER_BYTES);
        prop_assert!(reply.bytes.len() <= usize::from(most));
        prop_assert!(Message::from_vec(&reply.bytes).is_ok());
    }
}

/// Whoever says nothing of its room may be somebody else: its question is not made much longer.
#[test]
fn a_small_question_has_no_big_answer() {
    let (world, settings) = (World::full(), settings(false));
    for name in ["web.service.consul.", "db.service.consul.", "n1.node.consul.", "consul."] {
        for kind in [RecordType::A, RecordType::ANY, RecordType::SRV, RecordType::SOA, RecordType::NS] {
            let asked = question(name, kind, None).to_vec().unwrap();
            let Outcome::Reply(reply) = outcome(&world, &settings, &asked, Transport::Udp) else {
                panic!("no reply for {name}")
            };
            let (answer, question) = (reply.bytes.len(), asked.len());
            assert!(answer <= 8 * question, "{name} {kind}: {answer} bytes for {question}");
        }
    }
}
