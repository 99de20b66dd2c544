//! Enrolling: of a host by its daemon, with a token or by what its tailnet says of it; of a person by `swarmctl login`.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use swarm_proto::{
    Code, Problem, frame,
    identity::{Applicant, Claim, Enrolled, Petition},
    token::Token,
};

use tokio::time::timeout;

use crate::remote::{Session, Trust, connect};

/// An answer's view is cut to fit one frame.
const LARGEST: usize = 2 << 20;
/// The longest that one place may take: a swarm without a leader looks for one for 10 s.
const ANSWER: Duration = Duration::from_secs(30);

/// What somebody comes with.
#[derive(Clone, Debug)]
pub enum Invitation {
    /// It says where to knock, and whom to trust there.
    Token(Token),
    /// What the tailnet says of this host: its own address, and `ip:port` of other hosts of that tailnet.
    Tailnet { own: IpAddr, places: Vec<String> },
}

/// Knocks where the invitation says, one place after the other. `sign` signs with the key that is to be certified.
///
/// # Errors
/// What the swarm says, or why nobody there could be asked. Nothing is sent to a place that does not show a token's authority.
pub async fn enroll(with: &Invitation, who: &Applicant, sign: impl Fn(&[u8]) -> Result<Vec<u8>, Problem>) -> Result<Enrolled, Problem> {
    let mut last = Problem::new(Code::BadRequest, "nobody was asked", "the token names no place");
    let (places, trust) = match with {
        Invitation::Token(token) => (&token.addresses, Trust::Pin(token.pin)),
        Invitation::Tailnet { own, places } => (places, Trust::Address { own: *own }),
    };
    for address in places {
        let asked = async {
            let session = connect(address, &trust, None).await?;
            let petition = petition(with, who, &session.exporter, &sign)?;
            ask(session, address, &petition).await
        };
        let answer = timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(silent(address)));
        match answer {
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

fn silent(address: &str) -> Problem {
    let why = format!("it did not answer within {} s", ANSWER.as_secs());
    Problem::new(Code::NoDaemon, format!("swarmd at {address} cannot be asked"), why).hint("it is safe to try again")
}

fn petition(
    with: &Invitation,
    who: &Applicant,
    exporter: &[u8; 32],
    sign: &impl Fn(&[u8]) -> Result<Vec<u8>, Problem>,
) -> Result<Petition, Problem> {
    let request = postcard::to_stdvec(who).expect("plain data encodes");
    let signed = Petition::signed(exporter, &request);
    let claim = match with {
        Invitation::Token(token) => {
            Claim::Token { id: token.id(), mac: blake3::keyed_hash(&token.key(), &signed).as_bytes().to_vec().into() }
        }
        Invitation::Tailnet { .. } => Claim::Tailnet,
    };
    Ok(Petition { claim, request: request.into(), signature: sign(&signed)?.into() })
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
