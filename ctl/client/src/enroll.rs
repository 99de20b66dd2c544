//! Enrolling with a token: of a host by its daemon, of a person by `swarmctl login`.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use swarm_proto::{
    Code, Problem, frame,
    identity::{Applicant, Enrolled, Petition},
    token::Token,
};

use crate::remote::{Session, Trust, connect};

/// A view of the largest swarm.
const LARGEST: usize = 16 << 20;

/// Knocks where the token says, one place after the other. `sign` signs with the key that is to be certified.
///
/// # Errors
/// What the swarm says, or why nobody there could be asked. Nothing is sent to a place that does not show the pinned authority.
pub async fn enroll(token: &Token, who: &Applicant, sign: impl Fn(&[u8]) -> Result<Vec<u8>, Problem>) -> Result<Enrolled, Problem> {
    let mut last = Problem::new(Code::BadRequest, "nobody was asked", "the token names no place");
    for address in &token.addresses {
        let asked = async {
            let session = connect(address, &Trust::Pin(token.pin), None).await?;
            let petition = petition(token, who, &session.exporter, &sign)?;
            ask(session, address, &petition).await
        };
        match asked.await {
            Ok(enrolled) => return Ok(enrolled),
            // the swarm has spoken: no other node of it will say something else
            Err(problem) if problem.what == REFUSED => return Err(problem),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

/// The ledger's own word.
const REFUSED: &str = "enrolment was refused";

fn petition(
    token: &Token,
    who: &Applicant,
    exporter: &[u8; 32],
    sign: &impl Fn(&[u8]) -> Result<Vec<u8>, Problem>,
) -> Result<Petition, Problem> {
    let request = postcard::to_stdvec(who).expect("plain data encodes");
    let signed = Petition::signed(exporter, &request);
    let mac = blake3::keyed_hash(&token.key(), &signed).as_bytes().to_vec();
    Ok(Petition { token: token.id(), request: request.into(), signature: sign(&signed)?.into(), mac: mac.into() })
}

async fn ask(session: Session, address: &str, petition: &Petition) -> Result<Enrolled, Problem> {
    let broken = |why: String| Problem::new(Code::NoDaemon, format!("swarmd at {address} went away before it answered"), why);
    let (mut sender, connection) = http1::handshake(TokioIo::new(session.stream)).await.map_err(|e| broken(e.to_string()))?;
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(postcard::to_stdvec(petition).expect("plain data encodes")));
    let request = Request::post("/v1/enroll").header(header::HOST, "swarm").body(body).expect("a constant path makes a request");
    let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
    let is_ok = response.status().is_success();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|e| broken(e.to_string()))?.to_bytes();
    let unreadable = |e: String| Problem::unreadable(format!("the answer of {address} cannot be understood"), e);
    if is_ok {
        return frame::decode(&body).map_err(|e| unreadable(e.to_string()));
    }
    Err(serde_json::from_slice(&body).unwrap_or_else(|e| unreadable(e.to_string())))
}
