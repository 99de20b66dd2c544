//! What stands behind the `?`, in the path and in small bodies. Unknown parameters are refused: a misspelt filter must not
//! answer with everything.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query},
};
use http::{StatusCode, Uri, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use swarm_proto::{Code, Problem, limits};

use crate::refusal::Refusal;

/// Entries of a page whose size was not asked for.
const PAGE: u32 = 100;
/// Longest `?wait=`.
const LONGEST_WAIT: f64 = 86_400.0;

pub(crate) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Query::try_from_uri(uri).map(|Query(value)| value).map_err(|e| {
        Refusal::bad("the query cannot be understood", std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string))
    })
}

/// What stands in the path for `{id}`, of which nothing is known but that it is text.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|e| Refusal::bad("the path cannot be understood", e.body_text()))
    }
}

/// An id in the path.
pub(crate) fn id<T: FromStr<Err: Display>>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|e: T::Err| Refusal::bad("the path cannot be understood", e.to_string()))
}

/// A page's size, 1 to [`limits::PAGE`].
pub(crate) fn page(limit: Option<u32>) -> Result<u32, Refusal> {
    match limit {
        None => Ok(PAGE),
        Some(n) if (1..=limits::PAGE).contains(&(n as usize)) => Ok(n),
        Some(n) => Err(Refusal::bad("the query cannot be understood", format!("limit={n}: a page has 1 to {} entries", limits::PAGE))),
    }
}

/// A switch: `?follow`, `?follow=1`, `?follow=true`.
pub(crate) fn switch(name: &str, value: Option<&str>) -> Result<bool, Refusal> {
    match value {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(other) => Err(Refusal::bad("the query cannot be understood", format!("{name}={other}: it is 1 or 0"))),
    }
}

/// Seconds to wait, fractions allowed.
pub(crate) fn wait(seconds: Option<f64>) -> Result<Option<Duration>, Refusal> {
    match seconds {
        None => Ok(None),
        Some(s) if (0.0..=LONGEST_WAIT).contains(&s) => Ok(Some(Duration::from_secs_f64(s))),
        Some(s) => Err(Refusal::bad("the query cannot be understood", format!("wait={s}: it is 0 to {LONGEST_WAIT} seconds"))),
    }
}

/// A whole body, within [`limits::HTTP_BODY`].
pub(crate) async fn body(body: Body) -> Result<bytes::Bytes, Refusal> {
    body_within(body, limits::HTTP_BODY).await
}

/// A whole body of at most `limit` bytes.
pub(crate) async fn body_within(body: Body, limit: usize) -> Result<bytes::Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(Refusal::with_status(
            StatusCode::PAYLOAD_TOO_LARGE,
            Problem::new(Code::BadRequest, "the request is too large", format!("a body has at most {limit} bytes")),
        )),
        Err(e) => Err(Refusal::bad("the request's body cannot be read", e.to_string())),
    }
}

/// A body that is a JSON object.
pub(crate) async fn json<T: DeserializeOwned>(request: Body) -> Result<T, Refusal> {
    object(&body(request).await?).map_err(not_understood)
}

fn not_understood(why: String) -> Refusal {
    Refusal::bad("the request's body cannot be understood", why)
}

/// A body that may be left out.
pub(crate) async fn json_or_default<T: DeserializeOwned + Default>(request: Body) -> Result<T, Refusal> {
    let bytes = body(request).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    object(&bytes).map_err(not_understood)
}

/// A JSON object as a struct. Serde would take an array of its fields in order as well, a form that nobody meant to offer.
pub(crate) fn object<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("it is not a JSON object".to_owned());
    }
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

/// The body of a call that takes none; `{}` counts as none.
pub(crate) async fn nothing(request: Body) -> Result<(), Refusal> {
    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    json_or_default::<Nothing>(request).await.map(|Nothing {}| ())
}
