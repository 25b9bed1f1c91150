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
/// Aliases that are followed one after the other.
const MAX_ALIASES: usize = 4;
/// Fewest bytes of a record: a pointer, type, class, TTL, length and an IPv4 address.
const MIN_RECORD_BYTES: u16 = 16;

/// How a message came, which decides how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    pub question: Query,
    /// The question as a message.
    pub message: Vec<u8>,
    /// Room for the recursor's answer.
    pub room: u16,
    /// What the client is told when no recursor answers.
    pub failure: Reply,
    /// An answer of ours that the recursor's completes; without one, its answer is the client's.
    begun: Option<Box<Begun>>,
}

/// An alias of ours for a name of others.
#[derive(Debug, Clone, PartialEq)]
struct Begun {
    asked: Asked,
    answer: Answer,
}

impl Forward {
    /// What the client is told once a recursor has answered.
    #[must_use]
    pub fn complete(self, settings: &Settings, found: Reply) -> Reply {
        let Some(begun) = self.begun else { return found };
        let Begun { asked, mut answer } = *begun;
        let Ok(message) = Message::from_vec(&found.bytes) else { return self.failure };
        let kinds = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        let useful = message.answers.into_iter().filter(|record| kinds.contains(&record.record_type()));
        answer.answers.extend(useful);
        asked.encode(settings, &answer).unwrap_or(self.failure)
    }
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
        let Ok(mut message) = Message::from_vec(bytes) else {
            return bare(metadata, ResponseCode::FormErr);
        };
        let (Some(query), true) = (message.queries.pop(), message.queries.is_empty()) else {
            return bare(metadata, ResponseCode::FormErr);
        };
        metadata.recursion_available = !self.settings.recursors.is_empty();
        self.answer(Asked { metadata, query, edns: message.edns, transport }, bytes, rng)
    }

    fn answer(&self, asked: Asked, bytes: &[u8], rng: &mut Rng) -> Outcome {
        if asked.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return self.reply(&asked, &Answer::of_code(ResponseCode::BADVERS));
        }
        if asked.query.query_class != DNSClass::IN {
            return self.reply(&asked, &Answer::of_code(ResponseCode::Refused));
        }
        let question = Question::new(&asked.query.name, asked.query.query_type);
        let mut answer = match self.look_up(&question, &asked, rng) {
            Ok(answer) => answer,
            Err(_) if asked.wants_recursion() => return self.forward(asked, bytes),
            Err(code) => return self.reply(&asked, &Answer::of_code(code)),
        };
        // What stands behind an alias is part of the answer, as far as we or a recursor know it.
        for _alias in 0..MAX_ALIASES {
            let Some(target) = answer.alias(question.kind) else { break };
            let question = Question::new(&target, question.kind);
            match self.look_up(&question, &asked, rng) {
                Ok(found) if found.answers.iter().any(|record| answer.answers.contains(record)) => break,
                Ok(found) => answer.answers.extend(found.answers),
                Err(_) if asked.wants_recursion() => return self.follow(asked, answer, target),
                Err(_) => break,
            }
        }
        self.reply(&asked, &answer)
    }

    /// Looks a name up among ours. Of the names of others there is only the code to refuse them with.
    fn look_up(
        &self,
        question: &Question,
        asked: &Asked,
        rng: &mut Rng,
    ) -> Result<Answer, ResponseCode> {
        let place = self.place_of(&question.labels);
        if matches!(question.kind, RecordType::AXFR | RecordType::IXFR) && place != Place::Elsewhere {
            return Ok(Answer::of_code(ResponseCode::NotImp));
        }
        let mut asking = Asking {
            registry: self.registry,
            settings: self.settings,
            question,
            max_answers: self.max_answers(asked),
            describes_nodes: matches!(place, Place::Consul(..)) && self.settings.node_meta_txt,
            now: self.now,
            rng,
        };
        let of_zone = matches!(question.kind, RecordType::SOA | RecordType::NS);
        Ok(match place {
            Place::Consul(domain, _) if of_zone => asking.zone_records(domain),
            Place::Zone(zone, _) if of_zone => asking.zone_records(&zone.domain),
            Place::Consul(domain, labels) => asking.consul(domain, labels),
            Place::Zone(zone, labels) => asking.zone(zone, labels),
            Place::Elsewhere => {
                let address = reversed(&question.labels).ok_or(ResponseCode::Refused)?;
                asking.reverse(address).ok_or(ResponseCode::ServFail)?
            }
        })
    }

    /// The zone with the longest name that a name is in.
    fn place_of<'s, 'n>(&'s self, labels: &'n [String]) -> Place<'s, 'n> {
        let domains = std::iter::once(&self.settings.domain).chain(&self.settings.alt_domain);
        let ours = domains.filter_map(|domain| Some(Place::Consul(domain, domain.strip(labels)?)));
        let zones = self.settings.zones.iter();
        let zones = zones.filter_map(|zone| Some(Place::Zone(zone, zone.domain.strip(labels)?)));
        ours.chain(zones).min_by_key(Place::labels_before).unwrap_or(Place::Elsewhere)
    }

    /// The client's own question, for a recursor.
    fn forward(&self, asked: Asked, bytes: &[u8]) -> Outcome {
        let failure = asked.encode(self.settings, &Answer::of_code(ResponseCode::ServFail));
        failure.map_or(Outcome::Silence, |failure| {
            Outcome::Forward(Forward {
                room: asked.room(),
                question: asked.query,
                message: bytes.to_vec(),
                failure,
                begun: None,
            })
        })
    }

    /// A question about what an alias of ours stands for.
    fn follow(&self, asked: Asked, answer: Answer, target: Name) -> Outcome {
        let question = Query::query(target, asked.query.query_type);
        let mut message = Message::new(asked.metadata.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(question.clone());
        let alias = asked.encode(self.settings, &answer);
        let (Some(failure), Ok(message)) = (alias, message.to_vec()) else { return Outcome::Silence };
        let begun = Some(Box::new(Begun { asked, answer }));
        let room = SMALL_ANSWER_BYTES;
        Outcome::Forward(Forward { question, message, room, failure, begun })
    }

    /// How many answers may fit, so that no more are made.
    fn max_answers(&self, asked: &Asked) -> usize {
        if asked.transport == Transport::Udp && asked.room() <= SMALL_ANSWER_BYTES {
            return self.settings.udp_answer_limit.min(MAX_SMALL_ANSWERS);
        }
        usize::from(asked.room() / MIN_RECORD_BYTES)
    }

    fn reply(&self, asked: &Asked, answer: &Answer) -> Outcome {
        asked.encode(self.settings, answer).map_or(Outcome::Silence, Outcome::Reply)
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
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// Of the answer: flags and id, as far as they do not depend on what is found.
    metadata: Metadata,
    query: Query,
    edns: Option<Edns>,
    transport: Transport,
}

impl Asked {
    const fn wants_recursion(&self) -> bool {
        self.metadata.recursion_available && self.metadata.recursion_desired
    }

    /// Most bytes that the client takes.
    fn room(&self) -> u16 {
        match (self.transport, &self.edns) {
            (Transport::Tcp, _) => MAX_TCP_ANSWER_BYTES,
            (Transport::Udp, None) => SMALL_ANSWER_BYTES,
            (Transport::Udp, Some(edns)) => {
                edns.max_payload().clamp(SMALL_ANSWER_BYTES, MAX_UDP_ANSWER_BYTES)
            }
        }
    }

    fn encode(&self, settings: &Settings, answer: &Answer) -> Option<Reply> {
        let mut metadata = self.metadata;
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        // Consul's refusals come without EDNS.
        let edns = self.edns.as_ref().filter(|_| answer.code != ResponseCode::Refused);
        let envelope = Envelope {
            metadata,
            question: Some(&self.query),
            edns: edns.map(|edns| edns_for(edns, answer.code)),
            room: self.room(),
            compress: settings.compress,
            honest: settings.enable_truncate,
        };
        match encode(envelope, answer) {
            Ok(bytes) => Some(Reply { bytes, kind: Some(self.query.query_type), code: answer.code }),
            Err(error) => {
                tracing::error!(%error, question = %self.query, "an answer cannot be written");
                None
            }
        }
    }
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
