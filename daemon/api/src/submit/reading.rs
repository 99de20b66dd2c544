//! One line into one submission.
//!
//! Most streams repeat themselves: a thousand lines that differ in their `id` only. So the head of a line, `{"id":"..","key":".."`,
//! is cut off as text, and when everything after it is byte for byte what it was on the line before, the checked spec of that line
//! is used again, shared. What the cut does not understand plainly (an escape, another order) is parsed in full; nothing is ever
//! accepted by the short way that the long way would refuse.

use std::sync::Arc;

use serde::Deserialize;
use swarm_proto::{
    Code, Problem,
    api::SubmitRequest,
    ledger::Submit,
    limits,
    spec::{Array, JobSpec},
};

use crate::query;

/// Reads the lines of one stream.
pub(super) struct Reading {
    submitter: String,
    os: &'static str,
    last: Option<Last>,
}

/// What the last line that was read in full said behind its head.
struct Last {
    /// Its head named a key: a rest that follows one may not name another, and one that does not may.
    has_key: bool,
    rest: Vec<u8>,
    spec: Arc<JobSpec>,
    array: Array,
    follow: bool,
}

/// A line that can be submitted.
pub(super) struct Read {
    pub(super) id: Arc<str>,
    pub(super) submit: Submit,
    pub(super) follow: bool,
}

/// A line that cannot, with its id as far as that can be read.
pub(super) struct BadLine {
    pub(super) id: Arc<str>,
    pub(super) problem: Problem,
}

impl Reading {
    pub(super) const fn new(submitter: String, os: &'static str) -> Self {
        Self { submitter, os, last: None }
    }

    pub(super) fn read(&mut self, line: &[u8]) -> Result<Read, BadLine> {
        let head = Head::cut(line);
        if let (Some(head), Some(last)) = (&head, &self.last)
            && head.rest == last.rest
            && head.key.is_some() == last.has_key
            && head.is_within_bounds()
        {
            let submit = self.submit(head.key.map(str::to_owned), Arc::clone(&last.spec), last.array.clone());
            return Ok(Read { id: head.id.into(), submit, follow: last.follow });
        }
        self.read_in_full(line, head.as_ref())
    }

    fn read_in_full(&mut self, line: &[u8], head: Option<&Head<'_>>) -> Result<Read, BadLine> {
        let mut request: SubmitRequest = query::object(line).map_err(|why| {
            let problem = Problem::new(Code::BadRequest, "the line cannot be understood", why);
            BadLine {
                id: readable_id(line),
                problem: problem.hint("each line is one JSON object, such as {\"id\":\"1\",\"argv\":[\"true\"]}"),
            }
        })?;
        if request.id.len() > limits::NAME {
            let why = format!("its id has {} bytes, at most {} are taken", request.id.len(), limits::NAME);
            return Err(BadLine {
                id: shortened(&request.id),
                problem: Problem::new(Code::BadRequest, "the submission is not acceptable", why),
            });
        }
        let id: Arc<str> = std::mem::take(&mut request.id).into();
        let (key, follow) = (request.key.clone(), request.follow.unwrap_or(true));
        let (spec, array) = request.into_job(self.os).map_err(|problem| BadLine { id: Arc::clone(&id), problem })?;
        let spec = Arc::new(spec);
        // what is signed is signed for one key
        if let Some(head) = head.filter(|head| head.key == key.as_deref() && spec.signed.is_none()) {
            let has_key = key.is_some();
            self.last = Some(Last { has_key, rest: head.rest.to_vec(), spec: Arc::clone(&spec), array: array.clone(), follow });
        }
        Ok(Read { id, submit: self.submit(key, spec, array), follow })
    }

    fn submit(&self, key: Option<String>, spec: Arc<JobSpec>, array: Array) -> Submit {
        Submit { submitter: self.submitter.clone(), key, spec, array, retry_of: None }
    }
}

/// The id of a line that cannot be read as a submission; empty when even that is not there.
pub(super) fn readable_id(line: &[u8]) -> Arc<str> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: String,
    }
    if let Ok(OnlyId { id }) = query::object(line) {
        return shortened(&id);
    }
    Head::cut(line).map_or_else(|| "".into(), |head| shortened(head.id))
}

fn shortened(id: &str) -> Arc<str> {
    let mut end = id.len().min(limits::NAME);
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    id[..end].into()
}

/// `{"id":"..","key":".."` and what follows it.
struct Head<'a> {
    id: &'a str,
    key: Option<&'a str>,
    rest: &'a [u8],
}

impl<'a> Head<'a> {
    fn cut(line: &'a [u8]) -> Option<Self> {
        let rest = behind_blanks(line).strip_prefix(b"{")?;
        let (id, rest) = member(rest, b"\"id\"")?;
        let key = behind_blanks(rest).strip_prefix(b",").and_then(|rest| member(rest, b"\"key\""));
        Some(match key {
            Some((key, rest)) => Self { id, key: Some(key), rest },
            None => Self { id, key: None, rest },
        })
    }

    /// What [`SubmitRequest::into_job`] and the check of the id would say of these two.
    fn is_within_bounds(&self) -> bool {
        self.id.len() <= limits::NAME && self.key.is_none_or(|key| (1..=limits::NAME).contains(&key.len()))
    }
}

/// What follows the blanks of JSON (RFC 8259, section 2), of which a form feed is none.
fn behind_blanks(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    end.map_or(&[], |end| &text[end..])
}

/// `name : "value"` where the value is the same in JSON and in Rust; and what follows.
fn member<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let text = behind_blanks(text).strip_prefix(name)?;
    let text = behind_blanks(text).strip_prefix(b":")?;
    let text = behind_blanks(text).strip_prefix(b"\"")?;
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    if text[end] != b'"' {
        return None;
    }
    Some((std::str::from_utf8(&text[..end]).ok()?, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading() -> Reading {
        Reading::new("local".into(), "linux")
    }

    fn told(read: Result<Read, BadLine>) -> Result<(String, Submit, bool), (String, Problem)> {
        read.map(|r| (r.id.to_string(), r.submit, r.follow)).map_err(|bad| (bad.id.to_string(), bad.problem))
    }

    #[test]
    fn lines_that_differ_in_id_and_key_share_one_spec() {
        let mut reading = reading();
        let a = reading.read(br#"{"id":"a","argv":["true"]}"#).ok().unwrap();
        let b = reading.read(br#"{"id":"b","argv":["true"]}"#).ok().unwrap();
        let k = reading.read(br#"{"id":"k","key":"j","argv":["true"]}"#).ok().unwrap();
        let c = reading.read(br#"{"id":"c","key":"k","argv":["true"]}"#).ok().unwrap();
        let d = reading.read(br#"{"id":"d","argv":["false"]}"#).ok().unwrap();
        assert!(Arc::ptr_eq(&a.submit.spec, &b.submit.spec));
        assert!(Arc::ptr_eq(&k.submit.spec, &c.submit.spec));
        assert!(!Arc::ptr_eq(&a.submit.spec, &d.submit.spec));
        assert_eq!((&*b.id, c.submit.key.as_deref()), ("b", Some("k")));
    }

    #[test]
    fn a_key_behind_the_head_is_never_taken_from_another_line() {
        let mut reading = reading();
        for id in ["a", "b"] {
            let line = format!(r#"{{"id":"{id}","noop":true,"key":"k"}}"#);
            assert_eq!(reading.read(line.as_bytes()).ok().unwrap().submit.key.as_deref(), Some("k"));
        }
        let line = br#"{"id":"c","key":"other","noop":true,"key":"k"}"#;
        assert!(reading.read(line).is_err());
    }

    #[test]
    fn an_id_of_exactly_the_limit_passes_the_short_and_the_long_way() {
        for (len, passes) in [(limits::NAME - 1, true), (limits::NAME, true), (limits::NAME + 1, false)] {
            let mut reading = reading();
            for way in ["long", "short"] {
                let line = format!(r#"{{"id":"{}","noop":true}}"#, "x".repeat(len));
                assert_eq!(reading.read(line.as_bytes()).is_ok(), passes, "{way}, {len}");
                let line = format!(r#"{{"id":"1","key":"{}","noop":true}}"#, "x".repeat(len));
                assert_eq!(reading.read(line.as_bytes()).is_ok(), passes, "{way}, key of {len}");
            }
        }
    }

    #[test]
    fn a_bad_line_is_refused_under_its_id() {
        for (line, id) in [
            (&br#"{"id":"7","argv":[]}"#[..], "7"),
            (br#"{"id":"7","nonsense":1}"#, "7"),
            (br#"{"nonsense":1,"id":"7"}"#, "7"),
            (br#"{"id":"7","argv":["#, "7"),
            (br#"{"id":7}"#, ""),
            (b"[]", ""),
            (br#"["7",null,null,true]"#, ""),
            (b"\xff", ""),
        ] {
            let bad = reading().read(line).err().unwrap();
            assert_eq!((&*bad.id, bad.problem.code), (id, Code::BadRequest), "{}", String::from_utf8_lossy(line));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = reading().read(&line);
        }

        /// Whatever came before on the stream, a line is read as if it were the first one.
        #[test]
        fn the_short_way_says_what_the_long_way_says(
            lines in prop::collection::vec((
                r#"("id"[ \t\r\x0b\x0c]?: ?"[ab\\é"]{0,2}")|("id":1)|("name":"n")"#,
                r#"(, ?"key": ?"[xy\\]{0,2}")|(,"key":null)|(, "noop":true)|"#,
                r#"(,"noop":true)|(,"argv":\["a"\])|(,"id":"c","noop":true)|(,"noop":true,"key":"z")|(,"key":null,"noop":true)|(,"noop":true,"follow":false)|,"#,
            ), 1..12)
        ) {
            let mut reading = reading();
            for (head, key, rest) in lines {
                let line = format!("{{{head}{key}{rest}}}");
                let fresh = told(Reading::new("local".into(), "linux").read(line.as_bytes()));
                prop_assert_eq!(told(reading.read(line.as_bytes())), fresh, "{}", line);
            }
        }
    }
}
