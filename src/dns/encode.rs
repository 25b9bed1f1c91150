//! Answers as messages of bounded length. Pure.
//!
//! Records are written one by one until the next one does not fit: first the answers, then the
//! authority, then what is merely additional. Answers that were left out set TC; additional records
//! that were left out do not, because nobody is told less than was asked (RFC 2181, section 9).
//!
//! The library compresses only so many names in one message, and a long answer has one name per
//! record; so whole names that were written before are pointed at from here.

use std::collections::HashMap;

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, Query};
use hickory_proto::rr::{RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use super::answer::{Answer, folded};

/// Bytes of the record of EDNS, without options.
const OPT_BYTES: u16 = 11;
/// Offsets that a pointer can hold.
const MAX_POINTER: usize = 0x3fff;
/// The bits that make two bytes a pointer.
const POINTER: u16 = 0xc000;
/// Where the target stands in the data of an SRV record.
const SRV_TARGET: usize = 6;

/// What surrounds an answer.
pub(super) struct Envelope<'a> {
    pub(super) metadata: Metadata,
    pub(super) question: Option<&'a Query>,
    pub(super) edns: Option<Edns>,
    /// Most bytes of the message.
    pub(super) room: u16,
    pub(super) compress: bool,
    /// Whether TC tells of answers that were left out.
    pub(super) honest: bool,
}

/// Writes a message.
///
/// # Errors
/// When not even the question fits, or a name in the answer is longer than DNS allows.
pub(super) fn encode(envelope: Envelope<'_>, answer: &Answer) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(super::limits::SMALL_ANSWER_BYTES));
    let mut writer = Writer::new(&mut bytes, envelope.compress);
    let reserved = envelope.edns.as_ref().map_or(0, |_| OPT_BYTES);
    writer.encoder.set_max_size(envelope.room.saturating_sub(reserved));
    let place = writer.encoder.place::<Header>()?;
    if let Some(question) = envelope.question {
        writer.remember(folded(&question.name), writer.encoder.offset());
        question.emit(&mut writer.encoder)?;
    }
    let (answers, whole) = writer.section(&answer.answers)?;
    let (authorities, additionals) = if whole {
        let (authorities, whole) = writer.section(&answer.authorities)?;
        (authorities, if whole { writer.section(&answer.additionals)?.0 } else { 0 })
    } else {
        (0, writer.section(&answer.additionals)?.0)
    };
    writer.encoder.set_max_size(envelope.room);
    let mut metadata = envelope.metadata;
    if let Some(edns) = &envelope.edns {
        edns.emit(&mut writer.encoder)?;
    }
    metadata.truncation = envelope.honest && (answer.cut || !whole);
    let counts = HeaderCounts {
        queries: u16::from(envelope.question.is_some()),
        answers,
        authorities,
        additionals: additionals + u16::from(envelope.edns.is_some()),
    };
    place.replace(&mut writer.encoder, Header { metadata, counts })?;
    Ok(bytes)
}

struct Writer<'b> {
    encoder: BinEncoder<'b>,
    compress: bool,
    /// Where whole names stand, by their bytes in lower case.
    places: HashMap<Vec<u8>, u16>,
}

impl<'b> Writer<'b> {
    fn new(bytes: &'b mut Vec<u8>, compress: bool) -> Self {
        let mut encoder = BinEncoder::new(bytes);
        if !compress {
            encoder.set_name_encoding(NameEncoding::Uncompressed);
        }
        Self { encoder, compress, places: HashMap::new() }
    }

    /// Notes that a name is about to be written at an offset.
    fn remember(&mut self, name: Vec<u8>, offset: usize) {
        if self.compress
            && offset <= MAX_POINTER
            && let Ok(offset) = u16::try_from(offset)
        {
            self.places.entry(name).or_insert(offset);
        }
    }

    /// Writes as many records as fit. Says how many, and whether all did.
    fn section(&mut self, records: &[Record]) -> Result<(u16, bool), ProtoError> {
        let mut count = 0;
        for record in records {
            let start = self.encoder.offset();
            match self.record(record) {
                Ok(()) => count += 1,
                Err(ProtoError::MaxBufferSizeExceeded(_)) => {
                    self.encoder.set_offset(start);
                    self.encoder.trim();
                    return Ok((count, false));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((count, true))
    }

    fn record(&mut self, record: &Record) -> Result<(), ProtoError> {
        let start = self.encoder.offset();
        let owner = folded(&record.name);
        let known = self.places.get(&owner).copied();
        match known {
            Some(place) => self.encoder.emit_u16(POINTER | place)?,
            None => record.name.emit(&mut self.encoder)?,
        }
        record.record_type().emit(&mut self.encoder)?;
        record.dns_class.emit(&mut self.encoder)?;
        self.encoder.emit_u32(record.ttl)?;
        let place = self.encoder.place::<u16>()?;
        let data = self.encoder.offset();
        record.data.emit(&mut self.encoder)?;
        let length = u16::try_from(self.encoder.len_since_place(&place));
        place.replace(&mut self.encoder, length.unwrap_or(u16::MAX))?;
        // Only now is it certain that the record stays.
        if known.is_none() {
            self.remember(owner, start);
        }
        if let RData::SRV(srv) = &record.data {
            self.remember(folded(&srv.target), data + SRV_TARGET);
        }
        Ok(())
    }
}
