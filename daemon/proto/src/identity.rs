//! Who may come in: authorities, tokens, users and the steps of a node on its way in, as the ledger keeps them.
//!
//! ```text
//! mesh init      Change::Found        node CA and user CA enter the ledger: every voter can issue, no other node can
//! token create   Change::CreateToken  a MAC key derived from the secret; the secret itself is only in the printed line
//! mesh join      Change::Enroll       uses the token up in the same entry that binds node id, key and raft directory
//! user create    Change::SetUser      name and role; a token for a user's key follows
//! node revoke    Change::Revoke       the key never comes back
//! ```
//! Certificates only say that an authority has seen a key. What the key may do is read from the ledger, by the key, each time.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, LogIndex, Millis, NodeId, PeerKey, Problem, RootId, TokenId, UnixMillis,
    access::Role,
    admission::Rule,
    ledger::{Admit, View},
};

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A certificate authority with its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its self-signed certificate, DER.
    pub certificate: Bytes,
    /// Its private key, PKCS#8 DER.
    pub key: Secret,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Node,
    User,
}

impl Kind {
    /// Its word in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::User => "user",
        }
    }
}

/// A new swarm: the first entry of its ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its name among all swarms.
    pub cluster: ClusterId,
    /// Issues to nodes.
    pub nodes: Authority,
    /// Issues to people.
    pub users: Authority,
    /// Keys of the first nodes, the founder's own among them: everybody else needs an invitation.
    pub first: Vec<PeerKey>,
}

/// One change of who may come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Once in the life of a ledger.
    Found(Found),
    CreateToken(NewToken),
    RevokeToken {
        token: TokenId,
    },
    /// The proofs were checked by the leader; the token is used up here.
    Enroll(Enroll),
    /// How far a node has come on its way in; a step that it has passed changes nothing.
    Step {
        node: NodeId,
        step: Step,
    },
    /// A node is closed out for good: its key and its id never come back.
    Revoke {
        node: NodeId,
    },
    /// A new user, or another role of one.
    SetUser {
        name: String,
        role: Role,
    },
    /// A user and all keys of that user are closed out.
    RevokeUser {
        name: String,
    },
    /// A second authority of a kind; it issues from now on, the first is still believed.
    AddRoot {
        kind: Kind,
        authority: Authority,
    },
    /// An authority is believed no more; never the last one.
    DropRoot {
        kind: Kind,
        root: RootId,
    },
    /// A node holds a certificate of this authority.
    Issued {
        node: NodeId,
        root: RootId,
    },
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    pub id: TokenId,
    /// Checks that whoever enrols knows the secret.
    pub key: Secret,
    pub invite: Invite,
    /// How many may enrol with it, at least 1.
    pub uses: u32,
    /// How long it lives, by the ledger's own clock.
    pub life: Millis,
    /// Who asked for it.
    pub by: String,
}

/// How far a node is trusted. Its own file may want less: `voter = "never"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    /// It may hold the ledger, with what is secret in it, and vote.
    #[default]
    Voter,
    /// It runs tasks, and never votes.
    Worker,
}

impl NodeRole {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Voter => "voter",
            Self::Worker => "worker",
        }
    }
}

impl std::str::FromStr for NodeRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Voter, Self::Worker]
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or_else(|| "a node is let in as voter (it may vote) or as worker (it never does)".into())
    }
}

/// Whom a token lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Invite {
    Node {
        role: NodeRole,
        /// The one name that the node may have; `None`: any.
        name: Option<String>,
        /// Labels that the node must carry.
        labels: BTreeMap<String, String>,
    },
    /// One more key of a user who exists.
    User { name: String },
    /// Nobody is enrolled: whoever shows the token with a request is that user, with that role or the user's own if it is less.
    Pass { user: String, role: Role },
}

impl Invite {
    /// What is enrolled.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Node { .. } => Kind::Node,
            Self::User { .. } | Self::Pass { .. } => Kind::User,
        }
    }
}

/// A token that is shown with each request, as every node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    pub id: TokenId,
    /// What [`crate::token::Token::key`] makes of the secret.
    pub key: Secret,
    pub user: String,
    pub role: Role,
    pub ends: UnixMillis,
}

/// How long after its last use a token may be shown again by whoever used it, in milliseconds.
const RETRY: u64 = 60_000;

/// A token as the ledger keeps it, until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: TokenId,
    pub key: Secret,
    pub invite: Invite,
    pub uses: u32,
    /// The keys that enrolled with it. The same key again answers the same, so a lost answer may be asked for again.
    pub used_by: Vec<PeerKey>,
    /// When it was last used up by one more; zero: never.
    pub last_used: UnixMillis,
    pub created: UnixMillis,
    pub ends: UnixMillis,
    pub by: String,
}

impl TokenRecord {
    /// How many may still enrol with it.
    pub fn uses_left(&self) -> u32 {
        self.uses.saturating_sub(u32::try_from(self.used_by.len()).unwrap_or(u32::MAX))
    }

    /// Until when somebody may come with it. Once it is used up that is only whoever used it and did not hear the answer.
    pub fn open_until(&self) -> UnixMillis {
        if self.uses_left() > 0 { self.ends } else { self.ends.min(UnixMillis(self.last_used.0.saturating_add(RETRY))) }
    }
}

/// Somebody enrols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    pub by: Warrant,
    pub who: Applicant,
}

/// What lets somebody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Warrant {
    Token(TokenId),
    /// The leader's tailnet says of the host what the swarm's setting `mesh.admit` asks for.
    Tailnet(Rule),
}

/// Who asks to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applicant {
    Node { admit: Admit, labels: BTreeMap<String, String> },
    User { key: PeerKey },
}

impl Applicant {
    /// The key that is to be certified.
    pub const fn key(&self) -> PeerKey {
        match self {
            Self::Node { admit, .. } => admit.key,
            Self::User { key } => *key,
        }
    }

    /// What is enrolled.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Node { .. } => Kind::Node,
            Self::User { .. } => Kind::User,
        }
    }
}

/// How far a node has come on its way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The ledger has bound its id to its key and raft directory.
    #[default]
    Registered,
    /// The leader has sent it the view.
    Welcomed,
    /// It has the same view as the leader: both hashed it.
    Synced,
    /// It takes work.
    Ready,
}

/// A person, as the ledger knows one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub name: String,
    pub role: Role,
    /// Keys that logged in, the oldest first.
    pub keys: Vec<PeerKey>,
    /// Closed out; the name can be given again.
    pub is_gone: bool,
    /// Log index of the entry that last changed this record.
    pub changed: LogIndex,
}

/// Certificates of the authorities that are believed, the one that issues first. DER.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    pub nodes: Vec<Bytes>,
    pub users: Vec<Bytes>,
}

/// The signed request of somebody who enrols. Signature and MAC are made over the TLS session's exporter and `request`, so they
/// cannot be taken to another session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Petition {
    pub claim: Claim,
    /// An [`Applicant`] in postcard: the very bytes that are signed.
    pub request: Bytes,
    /// Ed25519, by the new key, over [`Petition::signed`].
    pub signature: Bytes,
}

/// Why somebody thinks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// By a token; the MAC is BLAKE3 keyed with the token's key, over [`Petition::signed`].
    Token { id: TokenId, mac: Bytes },
    /// By what the tailnet says of its address.
    Tailnet,
}

impl Petition {
    /// Label of the exporter (RFC 8446 section 7.5) that binds a petition to its TLS session.
    pub const EXPORTER: &'static [u8] = b"EXPORTER-swarm-enroll";

    /// The bytes that signature and MAC are made over.
    pub fn signed(exporter: &[u8; 32], request: &[u8]) -> Vec<u8> {
        [b"swarm enroll 1".as_slice(), exporter, request].concat()
    }
}

/// Somebody is enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Which swarm it is.
    pub cluster: ClusterId,
    /// Of a node: its id.
    pub node: Option<NodeId>,
    /// Of a user: name and role.
    pub user: Option<(String, Role)>,
    /// For the key that asked. DER.
    pub certificate: Bytes,
    pub roots: Roots,
    /// Of a node: who else is here.
    pub view: View,
    /// Recoveries of the swarm so far.
    pub epoch: u32,
    /// The leader's clock.
    pub now: UnixMillis,
}

/// A certificate that was renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    pub certificate: Bytes,
    pub roots: Roots,
    /// The clock of the voter that issued it.
    pub now: UnixMillis,
}

/// The answer to a [`Petition`].
pub type EnrollAnswer = Result<Enrolled, Problem>;
