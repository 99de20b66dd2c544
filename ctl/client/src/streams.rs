//! Answers that go on: JSON lines (logs, follow, submit) and server-sent events.

use std::ops::Range;

use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use swarm_proto::{
    Cursor, JobId, Problem, TaskId,
    http::{Begins, FollowLine, LogLine},
    ledger::Event,
    peer::{OutputChunk, Which},
};

use crate::{
    Client,
    connection::{Ask, broken_answer},
};

/// The lines of an answer, as they arrive.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// Up to here the buffer was given out.
    taken: usize,
    /// Up to here the rest of it holds no line feed.
    searched: usize,
    is_over: bool,
}

impl Lines {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: Vec::new(), taken: 0, searched: 0, is_over: false }
    }

    /// A line that is here already, without its end.
    fn arrived(&mut self) -> Option<Range<usize>> {
        let Some(length) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.taken..self.searched + length;
        self.taken = line.end + 1;
        self.searched = self.taken;
        Some(line)
    }

    /// Where in the buffer the next line is; valid until it is asked again.
    async fn line(&mut self) -> Result<Option<Range<usize>>, Problem> {
        loop {
            if let Some(line) = self.arrived() {
                return Ok(Some(line));
            }
            if self.is_over {
                let rest = self.taken..self.buffer.len();
                (self.taken, self.searched) = (rest.end, rest.end);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.extend(&frame.into_data().unwrap_or_default()),
                Some(Err(e)) => {
                    self.is_over = true;
                    self.taken = self.buffer.len();
                    return Err(broken_answer(&e));
                }
                None => self.is_over = true,
            }
        }
    }

    fn extend(&mut self, more: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        self.searched = self.buffer.len();
        self.buffer.extend_from_slice(more);
    }

    /// The next line as JSON.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        self.line().await?.map(|line| parse(&self.buffer[line])).transpose()
    }

    /// The next line, if all of it is here.
    pub(crate) fn take_arrived<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        self.arrived().map(|line| parse(&self.buffer[line])).transpose()
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(text).map_err(|e| Problem::unreadable("what swarmd says cannot be understood", e))
}

/// What a task wrote, as it is written.
pub struct LogStream {
    lines: Lines,
}

impl LogStream {
    /// The next piece; the last one is `End` or `Failed`, then `None`.
    ///
    /// # Errors
    /// The daemon went away, or says what cannot be understood.
    pub async fn next(&mut self) -> Result<Option<OutputChunk>, Problem> {
        self.lines.next::<LogLine>().await?.map(LogLine::into_chunk).transpose()
    }
}

/// How far a job or task is, up to its end.
pub struct FollowStream {
    lines: Lines,
}

impl FollowStream {
    /// The next line; the last one tells the end, then `None`.
    ///
    /// # Errors
    /// The daemon went away, or says what cannot be understood.
    pub async fn next(&mut self) -> Result<Option<FollowLine>, Problem> {
        self.lines.next().await
    }
}

/// What an event stream tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What was asked for is older than what is known, which begins here: there is a gap.
    Begins(Cursor),
    /// The next event.
    Event(Event),
}

/// Job events, without end.
pub struct EventStream {
    lines: Lines,
    fields: Fields,
}

impl EventStream {
    /// The next event; `None` when the daemon stops. Open a new stream after the last event's cursor to go on without a gap.
    ///
    /// # Errors
    /// What ended the stream.
    pub async fn next(&mut self) -> Result<Option<Told>, Problem> {
        while let Some(line) = self.lines.line().await? {
            let Some((name, data)) = self.fields.handle_line(&self.lines.buffer[line]) else { continue };
            match name.as_str() {
                "" | "message" => return Ok(Some(Told::Event(parse(data.as_bytes())?))),
                "begins" => return Ok(Some(Told::Begins(parse::<Begins>(data.as_bytes())?.begins))),
                "problem" => return Err(parse(data.as_bytes())?),
                // A newer daemon may tell more.
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The event that is being read (WHATWG HTML, "server-sent events", as far as it concerns us).
#[derive(Default)]
struct Fields {
    name: String,
    data: Option<String>,
}

impl Fields {
    /// The name and data of the event that this line, an empty one, completes.
    fn handle_line(&mut self, line: &[u8]) -> Option<(String, String)> {
        let line = String::from_utf8_lossy(line);
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| (name, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // Comments have no name; an event's cursor stands in its data too.
            _ => {}
        }
        None
    }
}

impl Client {
    async fn stream(&self, path: String, accept: &'static str) -> Result<Lines, Problem> {
        let (response, _connection) = self.send(&Ask { accept, ..Ask::get(path) }).await?;
        Ok(Lines::new(response))
    }

    /// What a task wrote and, with `follow`, what it writes until its attempt ends.
    ///
    /// # Errors
    /// As any call.
    pub async fn logs(&self, task: TaskId, which: Which, follow: bool) -> Result<LogStream, Problem> {
        let which = match which {
            Which::Both => "both",
            Which::Stdout => "stdout",
            Which::Stderr => "stderr",
        };
        let path = format!("/v1/tasks/{task}/logs?stream={which}&follow={}", u8::from(follow));
        Ok(LogStream { lines: self.stream(path, "application/x-ndjson").await? })
    }

    /// How far a job is, until it ends.
    ///
    /// # Errors
    /// As any call.
    pub async fn follow_job(&self, job: JobId) -> Result<FollowStream, Problem> {
        Ok(FollowStream { lines: self.stream(format!("/v1/jobs/{job}/follow"), "application/x-ndjson").await? })
    }

    /// Tells a task's end.
    ///
    /// # Errors
    /// As any call.
    pub async fn follow_task(&self, task: TaskId) -> Result<FollowStream, Problem> {
        Ok(FollowStream { lines: self.stream(format!("/v1/tasks/{task}/follow"), "application/x-ndjson").await? })
    }

    /// Job events after a cursor, or all that are known, and then each one as it comes true.
    ///
    /// # Errors
    /// As any call.
    pub async fn events(&self, after: Option<Cursor>) -> Result<EventStream, Problem> {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        let lines = self.stream(format!("/v1/events?follow=1{after}"), "text/event-stream").await?;
        Ok(EventStream { lines, fields: Fields::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Vec<(String, String)> {
        let mut fields = Fields::default();
        text.split('\n').filter_map(|line| fields.handle_line(line.as_bytes())).collect()
    }

    #[test]
    fn events_are_put_together_from_their_fields() {
        assert_eq!(told("id: 1.0\ndata: {}\n\n"), [(String::new(), "{}".into())]);
        assert_eq!(told("event: begins\r\ndata:a\r\ndata: b\r\n\r\n"), [("begins".into(), "a\nb".into())]);
        assert_eq!(told(":\n\n: alive\n\nevent: x\n\n"), []);
        assert_eq!(told("event: x\n\ndata: 1\n\n"), [(String::new(), "1".into())], "a name without data names nothing");
    }

    proptest! {
        #[test]
        fn what_is_told_is_what_was_written(events in prop::collection::vec(("[a-z]{0,5}", "[^\r\n]{1,20}(\n[^\r\n]{1,20}){0,2}"), 0..5)) {
            let text: String = events
                .iter()
                .map(|(name, data)| format!("event: {name}\nid: 1.0\ndata: {}\n:\n\n", data.replace('\n', "\ndata: ")))
                .collect();
            prop_assert_eq!(told(&text), events);
        }

        #[test]
        fn nothing_makes_it_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..10)) {
            let mut fields = Fields::default();
            for line in lines {
                let _ = fields.handle_line(&line);
            }
        }
    }
}
