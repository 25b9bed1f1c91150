//! One message in, what to do with it out. Pure: reads, time and dice are passed in.
//!
//! Invariants: nothing that is itself an answer is ever answered; no answer is longer than its client
//! can take; whatever the bytes, there is an outcome.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};

use super::answer::{Answer, Asking, Question};
use super::consul::reversed;
use super::encode::{Envelope, encode};
use super::limits::{MAX_TCP_ANSWER_BYTES, MAX_UDP_ANSWER_BYTES, SMALL_ANSWER_BYTES};
use super::registry::Registry;
use super::settings::{Domain, MAX_SMALL_ANSWERS, Settings, Zone};
use crate::net::rng::Rng;

/// Bytes of the fixed part of a message.
pub const HEADER_BYTES: usize = 12;
/// Bytes of a question behind its name's labels: their end, type and class.
const QUESTION_TAIL_BYTES: usize = 5;
/// The flag TC in the third byte of a message.
const TC: u8 = 0x02;
/// Fewest bytes of a record: a pointer, type, class, TTL, length and an IPv4 address.
const MIN_RECORD_BYTES: u16 = 16;

/// How a message came, which decides how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is sent: it is no question, or too short to be one.
    Silence,
    Reply(Reply),
    /// The name is none of ours; a recursor may know it.
    Forward(Forward),
}

/// An answer and, for the metrics, what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub bytes: Vec<u8>,
    /// What was asked for; `None` when that could not be read.
    pub kind: Option<RecordType>,
    pub code: ResponseCode,
}

impl Reply {
    /// The same without records, so that the client asks again over TCP.
    #[must_use]
    pub fn cut(mut self) -> Vec<u8> {
        let mut end = HEADER_BYTES;
        // The question comes first, so that its name has no pointers.
        while let Some(label @ 1..) = self.bytes.get(end) {
            end += 1 + usize::from(*label);
        }
        self.bytes.truncate(end + QUESTION_TAIL_BYTES);
        if let Some(header) = self.bytes.first_chunk_mut::<HEADER_BYTES>() {
            header[2] |= TC;
            header[6..].fill(0);
        }
        self.bytes
    }
}

/// A question for a recursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub question: Query,
    /// Room for the recursor's answer.
    pub room: u16,
    /// What the client is told when no recursor answers.
    pub failure: Reply,
}

/// What does not depend on the message.
pub struct Responder<'a, R> {
    pub registry: &'a R,
    pub settings: &'a Settings,
    /// Unix time in seconds.
    pub now: u32,
}

impl<R: Registry> Responder<'_, R> {
    /// Answers one message.
    #[must_use]
    pub fn respond(&self, bytes: &[u8], transport: Transport, rng: &mut Rng) -> Outcome {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Outcome::Silence };
        let mut metadata = response_to(header);
        if header[2] & 0x80 != 0 {
            return Outcome::Silence;
        }
        if metadata.op_code != OpCode::Query {
            return bare(metadata, ResponseCode::NotImp);
        }
        let Ok(message) = Message::from_vec(bytes) else { return bare(metadata, ResponseCode::FormErr) };
        let [query] = message.queries.as_slice() else { return bare(metadata, ResponseCode::FormErr) };
        metadata.recursion_available = !self.settings.recursors.is_empty();
        let asked = Asked { metadata, query, edns: message.edns.as_ref(), transport };
        self.answer(&asked, rng)
    }

    fn answer(&self, asked: &Asked<'_>, rng: &mut Rng) -> Outcome {
        if asked.edns.is_some_and(|edns| edns.version() != 0) {
            return self.reply(asked, &Answer::of_code(ResponseCode::BADVERS));
        }
        let question = Question {
            name: asked.query.name.clone(),
            labels: labels_of(&asked.query.name),
            kind: asked.query.query_type,
        };
        if asked.query.query_class != DNSClass::IN {
            return self.reply(asked, &Answer::of_code(ResponseCode::Refused));
        }
        let place = self.place_of(&question.labels);
        if matches!(question.kind, RecordType::AXFR | RecordType::IXFR) && place != Place::Elsewhere {
            return self.reply(asked, &Answer::of_code(ResponseCode::NotImp));
        }
        let mut asking = Asking {
            registry: self.registry,
            settings: self.settings,
            question: &question,
            max_answers: self.max_answers(asked),
            describes_nodes: matches!(place, Place::Consul(..)) && self.settings.node_meta_txt,
            now: self.now,
            rng,
        };
        let of_zone = matches!(question.kind, RecordType::SOA | RecordType::NS);
        let answer = match place {
            Place::Consul(domain, _) if of_zone => asking.zone_records(domain),
            Place::Zone(zone, _) if of_zone => asking.zone_records(&zone.domain),
            Place::Consul(domain, labels) => asking.consul(domain, labels),
            Place::Zone(zone, labels) => asking.zone(zone, labels),
            Place::Elsewhere => match reversed(&question.labels) {
                Some(address) => match asking.reverse(address) {
                    Some(answer) => answer,
                    None => return self.elsewhere(asked, ResponseCode::ServFail),
                },
                None => return self.elsewhere(asked, ResponseCode::Refused),
            },
        };
        self.reply(asked, &answer)
    }

    /// The zone with the longest name that a name is in.
    fn place_of<'s, 'n>(&'s self, labels: &'n [String]) -> Place<'s, 'n> {
        let domains = std::iter::once(&self.settings.domain).chain(&self.settings.alt_domain);
        let ours = domains.filter_map(|domain| Some(Place::Consul(domain, domain.strip(labels)?)));
        let zones = self.settings.zones.iter();
        let zones = zones.filter_map(|zone| Some(Place::Zone(zone, zone.domain.strip(labels)?)));
        ours.chain(zones).min_by_key(Place::labels_before).unwrap_or(Place::Elsewhere)
    }

    /// A name that is none of ours: `code` unless there is a recursor to ask.
    fn elsewhere(&self, asked: &Asked<'_>, code: ResponseCode) -> Outcome {
        if !asked.metadata.recursion_available || !asked.metadata.recursion_desired {
            return self.reply(asked, &Answer::of_code(code));
        }
        let failure = self.encode(asked, &Answer::of_code(ResponseCode::ServFail));
        failure.map_or(Outcome::Silence, |failure| {
            Outcome::Forward(Forward { question: asked.query.clone(), room: asked.room(), failure })
        })
    }

    /// How many answers may fit, so that no more are made.
    fn max_answers(&self, asked: &Asked<'_>) -> usize {
        if asked.transport == Transport::Udp && asked.room() <= SMALL_ANSWER_BYTES {
            return self.settings.udp_answer_limit.min(MAX_SMALL_ANSWERS);
        }
        usize::from(asked.room() / MIN_RECORD_BYTES)
    }

    fn reply(&self, asked: &Asked<'_>, answer: &Answer) -> Outcome {
        self.encode(asked, answer).map_or(Outcome::Silence, Outcome::Reply)
    }

    fn encode(&self, asked: &Asked<'_>, answer: &Answer) -> Option<Reply> {
        let mut metadata = asked.metadata;
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        // Consul's refusals come without EDNS.
        let edns = asked.edns.filter(|_| answer.code != ResponseCode::Refused);
        let envelope = Envelope {
            metadata,
            question: Some(asked.query),
            edns: edns.map(|edns| edns_for(edns, answer.code)),
            room: asked.room(),
            compress: self.settings.compress,
            honest: self.settings.enable_truncate,
        };
        match encode(envelope, answer) {
            Ok(bytes) => Some(Reply { bytes, kind: Some(asked.query.query_type), code: answer.code }),
            Err(error) => {
                tracing::error!(%error, question = %asked.query, "an answer cannot be written");
                None
            }
        }
    }
}

/// Where a name is, and the labels before the domain or zone.
#[derive(Debug, PartialEq)]
enum Place<'s, 'n> {
    Consul(&'s Domain, &'n [String]),
    Zone(&'s Zone, &'n [String]),
    Elsewhere,
}

impl Place<'_, '_> {
    const fn labels_before(&self) -> usize {
        match self {
            Self::Consul(_, labels) | Self::Zone(_, labels) => labels.len(),
            Self::Elsewhere => usize::MAX,
        }
    }
}

/// A readable question.
struct Asked<'m> {
    /// Of the answer: flags and id, as far as they do not depend on what is found.
    metadata: Metadata,
    query: &'m Query,
    edns: Option<&'m Edns>,
    transport: Transport,
}

impl Asked<'_> {
    /// Most bytes that the client takes.
    fn room(&self) -> u16 {
        match (self.transport, self.edns) {
            (Transport::Tcp, _) => MAX_TCP_ANSWER_BYTES,
            (Transport::Udp, None) => SMALL_ANSWER_BYTES,
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().clamp(SMALL_ANSWER_BYTES, MAX_UDP_ANSWER_BYTES)
            }
        }
    }
}

fn labels_of(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// The beginnings of an answer: what is copied from the question's header.
fn response_to(header: &[u8; HEADER_BYTES]) -> Metadata {
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8(header[2] >> 3 & 0x0f);
    let mut metadata = Metadata::new(id, MessageType::Response, op_code);
    metadata.recursion_desired = header[2] & 1 != 0;
    metadata
}

/// A header that says what is wrong, and nothing else: the rest of the message could not be read.
fn bare(mut metadata: Metadata, code: ResponseCode) -> Outcome {
    metadata.response_code = code;
    let envelope = Envelope {
        metadata,
        question: None,
        edns: None,
        room: SMALL_ANSWER_BYTES,
        compress: true,
        honest: true,
    };
    let bytes = encode(envelope, &Answer::of_code(code));
    bytes.map_or(Outcome::Silence, |bytes| Outcome::Reply(Reply { bytes, kind: None, code }))
}

/// The client's size comes back, as from Consul; options and flags are not looked at.
fn edns_for(asked: &Edns, code: ResponseCode) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(asked.max_payload()).set_rcode_high(code.high());
    edns
}
