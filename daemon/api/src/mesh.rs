//! Requests that come over the mesh: how they must look before anything else is looked at, and who a token makes of its owner.
//!
//! A browser may hold a user's certificate, and a page from elsewhere may make it ask. So: the name in `Host` must be one that only
//! this daemon has (a page reaches us under its own name by rebinding it), nothing that comes from another origin is answered, a
//! body must say that it is JSON (which a page cannot send elsewhere without asking first), and no answer ever allows another
//! origin to read it.

use std::{net::IpAddr, str::FromStr as _, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, header, uri::Authority};
use swarm_proto::{Code, Problem, access::Caller, token::Token};

use crate::Backend;

/// Names that nobody but a daemon of the swarm answers to.
const NAMES: [&str; 2] = ["swarm", "localhost"];
/// What a body may be.
const KINDS: [&str; 2] = ["application/json", "application/x-ndjson"];

/// Lets pass what nobody but a client of ours sends.
pub(crate) fn check<B>(request: &Request<B>, backend: &Arc<dyn Backend>) -> Result<(), Problem> {
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site != "none") {
        return Err(refused("it comes from a page of another origin"));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| Authority::from_str(host).ok());
    let host = host.ok_or_else(|| refused("it has no Host that can be understood"))?;
    if !is_ours(host.host(), backend) {
        let why = format!("'{}' is no name of this daemon", host.host().escape_debug());
        return Err(refused(&why).hint("ask for it by its address on the mesh"));
    }
    if *request.method() == Method::POST && !is_json(headers) {
        return Err(Problem::new(Code::BadRequest, "the request was refused", "its body does not say that it is JSON")
            .hint("send content-type: application/json"));
    }
    Ok(())
}

fn refused(why: &str) -> Problem {
    Problem::new(Code::Denied, "the request was refused", why)
}

/// An address is nobody's name, so it cannot be rebound.
fn is_ours(host: &str, backend: &Arc<dyn Backend>) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || NAMES.contains(&host) || backend.status().name.eq_ignore_ascii_case(host)
}

/// A request without a body has nothing to say about it.
fn is_json(headers: &HeaderMap) -> bool {
    let is_empty =
        headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0") && !headers.contains_key(header::TRANSFER_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    kind.map_or(is_empty, |kind| KINDS.contains(&kind))
}

/// The token of a request.
///
/// # Errors
/// [`Code::Denied`] when the header holds something else.
pub(crate) fn token(header: &HeaderValue) -> Result<Token, Problem> {
    let words = header.to_str().ok().and_then(|text| text.split_once(' '));
    let line = words.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, line)| line.trim());
    let line = line.ok_or_else(|| refused("only bearer tokens are taken"))?;
    line.parse().map_err(|e| refused(&format!("the token cannot be used: {e}")))
}

/// The owner of a certificate who is nobody any more.
pub(crate) fn nobody(why: String) -> Problem {
    Problem::new(Code::Denied, "the request was refused", why).hint("ask an admin of the swarm for a new login line")
}

/// Who asks, asked again: the same as before, or they must go.
pub(crate) fn is_still(again: &(dyn Fn() -> Result<Caller, Problem> + Send + Sync), before: &Caller) -> bool {
    again().is_ok_and(|now| now == *before)
}
