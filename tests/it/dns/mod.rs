//! DNS: answers compared with those of a real Consul 1.8.7, zones, sizes, bad input, and the port with
//! the programs that people point at it.

pub(crate) mod hostile;
mod names;
mod port;
mod recursors;
mod seed;
mod sizes;
pub(crate) mod tools;
#[path = "../../../fuzz/dns.rs"]
mod world;
mod zones;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft::dns::{Outcome, Responder, Settings, Transport};
use weft::net::rng::Rng;

use self::world::World;

const NOW: u32 = 1_700_000_000;
/// What `dig` says of its room.
const DIG: u16 = 1232;
const SOA: &str = "consul. 0 SOA ns.consul. hostmaster.consul. 1700000000 3600 600 86400 0";

/// A question as clients send it.
pub(crate) fn question(name: &str, kind: RecordType, room: Option<u16>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
    if let Some(room) = room {
        let mut edns = Edns::new();
        edns.set_max_payload(room);
        message.set_edns(edns);
    }
    message
}

/// What comes back for these bytes.
fn outcome(world: &World, settings: &Settings, asked: &[u8], transport: Transport) -> Outcome {
    let responder = Responder { registry: world, settings, now: NOW };
    responder.respond(asked, transport, &mut Rng::new())
}

/// The answer to a message, with its length in bytes.
fn answer_to(
    world: &World,
    settings: &Settings,
    asked: &Message,
    transport: Transport,
) -> (Message, usize) {
    match outcome(world, settings, &asked.to_vec().unwrap(), transport) {
        Outcome::Reply(reply) => (Message::from_vec(&reply.bytes).unwrap(), reply.bytes.len()),
        other => panic!("no reply but {other:?}"),
    }
}

/// The answer to a question of `dig`'s.
fn ask(world: &World, settings: &Settings, name: &str, kind: RecordType) -> Message {
    answer_to(world, settings, &question(name, kind, Some(DIG)), Transport::Udp).0
}

/// Records as text: owner, TTL, type, data.
fn shown(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), data(&r.data)))
        .collect()
}

fn data(data: &RData) -> String {
    match data {
        RData::A(ip) => ip.0.to_string(),
        RData::AAAA(ip) => ip.0.to_string(),
        RData::CNAME(name) => name.0.to_string(),
        RData::NS(name) => name.0.to_string(),
        RData::PTR(name) => name.0.to_string(),
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, srv.target),
        RData::TXT(txt) => {
            txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().join("|")
        }
        RData::SOA(soa) => format!(
            "{} {} {} {} {} {} {}",
            soa.mname, soa.rname, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
        ),
        other => panic!("{other:?} is not expected"),
    }
}

/// Sorted, because answers come in any order.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// The addresses in an answer.
fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| data(&record.data)).collect()
}

/// Asserts code, flags and all three sections, in any order within each.
fn expect(what: &str, message: &Message, code: ResponseCode, sections: [&[&str]; 3]) {
    let found = [&message.answers, &message.authorities, &message.additionals];
    let found = found.map(|records| sorted(shown(records)));
    let wanted = sections.map(|lines| sorted(lines.iter().map(|line| (*line).to_owned()).collect()));
    assert_eq!((message.metadata.response_code, found), (code, wanted), "{what}");
}
