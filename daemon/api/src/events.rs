//! Job events, from the ledger by cursor: one page as JSON, or a stream of server-sent events that never misses one.
//!
//! ```text
//! event: begins                 only when what was asked for is older than what is known
//! data: {"begins":"120.0"}
//!
//! id: 120.0                     give it back as ?after= or Last-Event-ID
//! data: {"cursor":"120.0","at":..,"what":{..}}
//! ```

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Uri, header};
use serde::Deserialize;
use swarm_proto::{
    Cursor, Problem,
    api::{Call, NodeEvent, Reply},
    http::Begins,
    peer::EventPage,
};
use tokio::sync::mpsc;

use crate::{
    query::{self, query},
    refusal::Refusal,
    router::{Api, misfit},
};

/// A comment is sent after this much silence, so that both sides notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    after: Option<String>,
    limit: Option<u32>,
    follow: Option<String>,
}

/// A stream with `?follow` or `accept: text/event-stream`, else one page.
pub(crate) async fn events(api: Api, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let asked: EventsQuery = query(&uri)?;
    let last_id = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("not text"));
    // A browser that reconnects repeats the old query, so what it has seen since counts for more.
    let after: Option<Cursor> = last_id.or(asked.after.as_deref()).map(query::id).transpose()?;
    let wants_stream = headers.get(header::ACCEPT).is_some_and(|kinds| kinds.as_bytes().starts_with(b"text/event-stream"));
    if query::switch("follow", asked.follow.as_deref())? || wants_stream {
        return Ok(follow(&api, after.unwrap_or_default()));
    }
    let reply = api.ask(Call::Events { after, limit: query::page(asked.limit)? }).await?;
    let Reply::Events { begins, events } = reply else { return Err(misfit(&reply)) };
    Ok(Json(EventPage { begins, events }).into_response())
}

struct Reader {
    pages: mpsc::Receiver<Result<EventPage, Problem>>,
    /// The last event sent, or the cursor asked for.
    last: Cursor,
}

fn follow(api: &Api, after: Cursor) -> Response {
    let reader = Reader { pages: api.backend.events(after), last: after };
    let stream = stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        let (text, goes_on) = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), goes_on.then_some(reader)))
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (head, Body::from_stream(stream)).into_response()
}

impl Reader {
    /// What to send next, and whether there is more to come after it.
    async fn next(&mut self) -> Option<(String, bool)> {
        match tokio::time::timeout(KEEP_ALIVE, self.pages.recv()).await {
            Err(_) => Some((":\n\n".to_owned(), true)),
            Ok(None) => None,
            Ok(Some(Ok(page))) => Some((self.page(&page), true)),
            Ok(Some(Err(problem))) => Some((format!("event: problem\ndata: {}\n\n", json(&problem)), false)),
        }
    }

    fn page(&mut self, page: &EventPage) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        // Nobody who asks for everything that is known has a gap.
        if page.begins > self.last && self.last != Cursor::default() {
            let _ = write!(text, "event: begins\ndata: {}\n\n", json(&Begins { begins: page.begins }));
        }
        for event in &page.events {
            let _ = write!(text, "id: {}\ndata: {}\n\n", event.cursor, json(event));
            self.last = event.cursor;
        }
        text
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("events are strings and numbers")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEventsQuery {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn node_events(api: Api, uri: Uri) -> Result<Json<Vec<NodeEvent>>, Refusal> {
    let asked: NodeEventsQuery = query(&uri)?;
    Ok(Json(api.backend.node_events(asked.after)))
}
