//! The one thing that a stranger may do: hand in a petition.
//!
//! It stands outside the router and its table, since that is about what known people may do. The petition and the answer are
//! postcard: the very bytes that are signed travel as they are. Everything else that a stranger asks for does not exist.

use std::{net::IpAddr, sync::Arc};

use axum::{body::Body, response::IntoResponse as _};
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use swarm_proto::{Code, Problem, frame, identity::Petition, limits};
use tokio::time::timeout;

use crate::{Backend, query, refusal::Refusal};

/// Where it is handed in.
const PATH: &str = "/v1/enroll";
/// Longest petition.
const LONGEST: usize = 64 << 10;

pub(crate) async fn answer(backend: &Arc<dyn Backend>, exporter: [u8; 32], from: IpAddr, request: Request<Incoming>) -> Response<Body> {
    enroll(backend, exporter, from, request).await.unwrap_or_else(axum::response::IntoResponse::into_response)
}

async fn enroll(
    backend: &Arc<dyn Backend>,
    exporter: [u8; 32],
    from: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    if request.uri().path() != PATH {
        return Err(Problem::new(Code::Denied, "the request was refused", "it is not known who asks")
            .hint("log in: swarmctl login LINE")
            .into());
    }
    if request.method() != Method::POST {
        return Err(Refusal::method(request.method(), "POST"));
    }
    // a stranger who sends slowly must not hold a place that others wait for
    let body = timeout(limits::HANDSHAKE_TIME, query::body_within(Body::new(request.into_body()), LONGEST)).await;
    let body = body.map_err(|_| Refusal::bad("the petition did not come", "its body took too long"))??;
    let petition = frame::decode::<Petition>(&body).ok();
    let petition =
        petition.ok_or_else(|| Refusal::bad("the petition cannot be understood", "it comes from another version, or is damaged"))?;
    let enrolled = backend.enroll(exporter, from, petition).await?;
    let bytes = postcard::to_stdvec(&enrolled).expect("an answer is plain data");
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}
