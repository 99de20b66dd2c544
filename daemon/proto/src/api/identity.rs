//! Words about who may come in, and about this one host's place in a swarm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, NodeId, RootId, TokenId, UnixMillis,
    access::Role,
    identity::{Invite, Kind, NodeRole, TokenRecord, UserRecord},
};

/// Asks for a join token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenRequest {
    /// What a node is let in as.
    pub role: NodeRole,
    /// The one name that the node may have.
    pub name: Option<String>,
    /// Labels that the node must carry.
    pub labels: BTreeMap<String, String>,
    /// How many may join with it; absent: 1.
    pub uses: Option<u32>,
    /// How long it lives; absent: 15 minutes.
    pub ttl_ms: Option<u64>,
    /// Where to knock, `host:port`; empty: addresses of nodes that are up.
    pub addresses: Vec<String>,
}

/// Asks for a new user, or for one more login line of one who exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    pub name: String,
    /// Absent: the user exists, and keeps the role.
    #[serde(default)]
    pub role: Option<Role>,
    /// How long the login line lives; absent: 15 minutes.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// Where to knock, as in [`TokenRequest`].
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// A token or login line. Said once: the swarm itself does not know it afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLine {
    pub token: TokenId,
    pub line: String,
    pub ends: UnixMillis,
}

/// A token, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenView {
    pub token: TokenId,
    pub invite: Invite,
    pub uses: u32,
    pub uses_left: u32,
    pub created: UnixMillis,
    pub ends: UnixMillis,
    pub by: String,
}

impl From<&TokenRecord> for TokenView {
    fn from(record: &TokenRecord) -> Self {
        Self {
            token: record.id,
            invite: record.invite.clone(),
            uses: record.uses,
            uses_left: record.uses_left(),
            created: record.created,
            ends: record.ends,
            by: record.by.clone(),
        }
    }
}

/// Asks for a token that is shown with each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRequest {
    /// Whose it is: a user who exists.
    pub user: String,
    /// Absent: the user's own.
    #[serde(default)]
    pub role: Option<Role>,
    /// How long it lives; absent: a day.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
    /// Where the API is, as in [`TokenRequest`].
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// A user, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    pub name: String,
    pub role: Role,
    /// Keys that are logged in.
    pub keys: Vec<String>,
}

impl From<&UserRecord> for UserView {
    fn from(user: &UserRecord) -> Self {
        Self { name: user.name.clone(), role: user.role, keys: user.keys.iter().map(ToString::to_string).collect() }
    }
}

/// An authority, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootView {
    pub kind: Kind,
    pub root: RootId,
    /// Whether new certificates come from it.
    pub issues: bool,
    /// Nodes that hold no certificate of it yet. Of users' authorities: empty.
    pub awaited: Vec<NodeId>,
}

/// Asks for another authority in the place of the one that issues, or ends the wait for those who have not renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotateRequest {
    /// The authority of users; else that of nodes.
    pub users: bool,
    /// Drop the old one now, whoever still holds a certificate of it.
    pub force: bool,
}

/// What is asked of this one daemon, whether or not it belongs to a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCall {
    /// Found a swarm.
    Init(Choices),
    /// Join the swarm of a token.
    Join(JoinRequest),
    /// Leave it for good.
    Leave,
}

/// What the operator of a host decides as it joins; written into its config file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Choices {
    /// `exec`: processes may run here.
    pub allow: Vec<String>,
    /// Never to be a voter.
    pub never_vote: bool,
    pub labels: BTreeMap<String, String>,
}

/// A token, and what its host decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// A token; or, where the swarm admits by its tailnet, what that says of this host ([`crate::admission::Rule`]).
    pub token: String,
    /// Without a token: hosts of the tailnet to knock at. Empty: all that carry the tag.
    #[serde(default)]
    pub at: Vec<String>,
    #[serde(default)]
    pub choices: Choices,
}

/// Where this host belongs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    pub cluster: ClusterId,
    /// `None` for a founder, whose first entry is on its way.
    pub node: Option<NodeId>,
    pub name: String,
}
