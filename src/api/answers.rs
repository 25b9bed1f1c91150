//! Encoded answers that are given again for as long as nothing of what they were made of has changed.
//!
//! The lists of instances are what discovery asks for over and over. `blocking::Read::kept` asks here
//! before it makes one. An answer stands under its [`Question`] and holds for one [`Edition`] of its topic,
//! so nobody is told anything older than what the catalog shows. Only the body is kept, as it is and, once
//! somebody took it so, compressed; headers are each request's own. Who asks makes no difference: what a token
//! may read is a matter of routes (`access::routes`), never of what stands in a body, and `gate` has decided by then.
//!
//! Invariant: at most [`MAX_KEPT_ANSWERS`] answers and [`MAX_KEPT_BYTES`] of bodies. They live in two
//! generations of half of that each; when the young one is full, the old one goes.

use std::collections::HashMap;
use std::io::Write;
use std::mem;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::limits::{
    MAX_KEPT_ANSWER_BYTES, MAX_KEPT_ANSWERS, MAX_KEPT_BYTES, MAX_KEPT_QUESTION_BYTES, MIN_GZIP_BYTES,
};
use super::query::Params;
use super::reply::Layout;
use crate::catalog::{Edition, Topic};
use crate::telemetry::ServerMetrics;

/// Everything that a body depends on besides the edition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    form: Form,
    topic: Topic,
    layout: Layout,
    parameters: Vec<(String, String)>,
}

/// What an instance looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// With its node and checks beside it.
    Health,
    /// Flat.
    Catalog,
}

impl Question {
    pub(super) fn new(form: Form, topic: Topic, params: &Params) -> Self {
        Self { form, topic, layout: params.layout, parameters: params.shaping() }
    }

    pub(super) const fn topic(&self) -> &Topic {
        &self.topic
    }

    fn parameter_bytes(&self) -> usize {
        self.parameters.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

pub(super) struct Answers {
    kept: Mutex<Generations>,
    metrics: ServerMetrics,
}

impl Answers {
    pub(super) fn new(metrics: ServerMetrics) -> Self {
        Self { kept: Mutex::default(), metrics }
    }

    /// The answer to a question as of `edition`, which was read before: one that was kept, or the one that
    /// `make` makes. `zipped` for one who takes it compressed.
    pub(super) fn give<E>(
        &self,
        question: Question,
        edition: Edition,
        zipped: bool,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Given, E> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&question, edition);
        self.metrics.http_answer(kept.is_some());
        let is_new = kept.is_none();
        let mut answer = match kept {
            Some(answer) => answer,
            None => Answer { edition, plain: make()?, zipped: None },
        };
        let zips =
            zipped && answer.zipped.is_none() && answer.plain.len() >= usize::from(MIN_GZIP_BYTES);
        if zips {
            answer.zipped = gzip(&answer.plain);
        }
        let given = match &answer.zipped {
            Some(body) if zipped => Given::Zipped(body.clone()),
            _ => Given::Plain(answer.plain.clone()),
        };
        if is_new || zips {
            self.keep(question, answer);
        }
        Ok(given)
    }

    /// Keeps an answer unless it is unusually large.
    fn keep(&self, question: Question, answer: Answer) {
        if answer.bytes() <= MAX_KEPT_ANSWER_BYTES
            && question.parameter_bytes() <= MAX_KEPT_QUESTION_BYTES
        {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).keep(question, answer);
        }
    }
}

/// A body to send.
pub(super) enum Given {
    Plain(Bytes),
    Zipped(Bytes),
}

#[derive(Debug, Clone)]
struct Answer {
    edition: Edition,
    plain: Bytes,
    zipped: Option<Bytes>,
}

impl Answer {
    fn bytes(&self) -> usize {
        self.plain.len() + self.zipped.as_ref().map_or(0, Bytes::len)
    }
}

/// `None` should memory refuse to be written to: then the body goes out as it is.
fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut zipped = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::default());
    zipped.write_all(plain).ok()?;
    zipped.finish().ok().map(Bytes::from)
}

#[derive(Default)]
struct Generations {
    young: HashMap<Question, Answer>,
    old: HashMap<Question, Answer>,
    young_bytes: usize,
}

impl Generations {
    /// What is still asked for moves to the young.
    fn get(&mut self, question: &Question, edition: Edition) -> Option<Answer> {
        if let Some(answer) = self.young.get(question) {
            return (answer.edition == edition).then(|| answer.clone());
        }
        let (question, answer) = self.old.remove_entry(question)?;
        if answer.edition != edition {
            return None;
        }
        self.keep(question, answer.clone());
        Some(answer)
    }

    fn keep(&mut self, question: Question, answer: Answer) {
        let bytes = answer.bytes();
        let fits = self.young_bytes + bytes <= MAX_KEPT_BYTES / 2;
        if !fits || self.young.len() >= MAX_KEPT_ANSWERS / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.old.remove(&question);
        self.young_bytes += bytes;
        if let Some(replaced) = self.young.insert(question, answer) {
            self.young_bytes -= replaced.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn question(number: usize) -> Question {
        Question {
            form: Form::Health,
            topic: Topic::Service(ServiceName::new("web").unwrap()),
            layout: Layout::Compact,
            parameters: vec![("tag".to_owned(), number.to_string())],
        }
    }

    fn answer(edition: Edition, bytes: usize) -> Answer {
        Answer { edition, plain: Bytes::from(vec![b' '; bytes]), zipped: None }
    }

    fn total(kept: &Generations) -> (usize, usize) {
        let all = || kept.young.values().chain(kept.old.values());
        (all().count(), all().map(Answer::bytes).sum())
    }

    #[test]
    fn an_answer_holds_for_its_edition_alone() {
        let (first, second) = (Edition::numbered(1), Edition::numbered(2));
        let mut kept = Generations::default();
        kept.keep(question(1), answer(first, 3));
        assert_eq!(kept.get(&question(1), first).unwrap().bytes(), 3);
        assert!(kept.get(&question(1), second).is_none());
        assert!(kept.get(&question(2), first).is_none());
        kept.keep(question(1), answer(second, 5));
        assert_eq!(kept.get(&question(1), second).unwrap().bytes(), 5);
        assert!(kept.get(&question(1), first).is_none());
        assert_eq!(total(&kept), (1, 5));
    }

    #[test]
    fn bytes_and_answers_are_bounded_and_what_is_asked_for_stays() {
        let edition = Edition::numbered(1);
        let mut kept = Generations::default();
        for (bytes, many) in [(MAX_KEPT_ANSWER_BYTES, 40), (0, 3 * MAX_KEPT_ANSWERS)] {
            kept.keep(question(0), answer(edition, bytes));
            for number in 1..many {
                kept.keep(question(number), answer(edition, bytes));
                assert!(kept.get(&question(0), edition).is_some(), "{number}");
                let (answers, held) = total(&kept);
                assert!(answers <= MAX_KEPT_ANSWERS && held <= MAX_KEPT_BYTES, "{answers}, {held}");
            }
        }
    }
}
