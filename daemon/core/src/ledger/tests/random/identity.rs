//! Random changes of who may come in.

use proptest::{prelude::*, sample::Index};
use swarm_proto::{
    Millis, NodeId, PeerKey, TokenId, UnixMillis,
    access::Role,
    admission::Rule,
    identity::{Applicant, Authority, Change, Enroll, Invite, Kind, NewToken, NodeRole, Secret, Step, Warrant},
    ledger::Command,
    token::root_id,
};

use super::{
    super::{admit, founding, model::Model},
    pick,
};

const USERS: [&str; 4] = ["ann", "bob", "carol", "dave"];
const NAMES: [&str; 4] = ["pi", "n2", "desk", "pi-2"];

#[derive(Clone, Debug)]
pub(super) enum IdentityStep {
    Found,
    CreateToken { id: u8, user: Option<u8>, uses: u8, hours: i8, limits: u8 },
    RevokeToken { id: u8 },
    Enroll { token: u8, is_node: bool, key: u8, raft: u8, name: u8, has_label: bool },
    Step { node: Index, step: u8 },
    Revoke { node: Index },
    SetUser { name: u8, role: u8 },
    RevokeUser { name: u8 },
    AddRoot { kind: bool, seed: u8 },
    DropRoot { kind: bool, seed: u8 },
    Issued { node: Index, seed: u8 },
}

pub(super) fn step() -> impl Strategy<Value = IdentityStep> {
    let index = any::<Index>;
    prop_oneof![
        1 => Just(IdentityStep::Found),
        4 => (0u8..6, prop::option::weighted(0.4, 0u8..4), 0u8..4, -1i8..40, 0u8..4)
            .prop_map(|(id, user, uses, hours, limits)| IdentityStep::CreateToken { id, user, uses, hours, limits }),
        1 => (0u8..6).prop_map(|id| IdentityStep::RevokeToken { id }),
        8 => (0u8..6, prop::bool::weighted(0.6), 0u8..9, 0u8..12, 0u8..4, any::<bool>())
            .prop_map(|(token, is_node, key, raft, name, has_label)| IdentityStep::Enroll { token, is_node, key, raft, name, has_label }),
        6 => (index(), 1u8..4).prop_map(|(node, step)| IdentityStep::Step { node, step }),
        1 => index().prop_map(|node| IdentityStep::Revoke { node }),
        3 => (0u8..4, 0u8..4).prop_map(|(name, role)| IdentityStep::SetUser { name, role }),
        1 => (0u8..4).prop_map(|name| IdentityStep::RevokeUser { name }),
        1 => (any::<bool>(), 0u8..4).prop_map(|(kind, seed)| IdentityStep::AddRoot { kind, seed }),
        1 => (any::<bool>(), 0u8..4).prop_map(|(kind, seed)| IdentityStep::DropRoot { kind, seed }),
        2 => (index(), 0u8..4).prop_map(|(node, seed)| IdentityStep::Issued { node, seed }),
    ]
}

fn authority(seed: u8) -> Authority {
    Authority { certificate: vec![seed; 40].into(), key: Secret(vec![seed; 48].into()) }
}

const fn kind_of(is_user: bool) -> Kind {
    if is_user { Kind::User } else { Kind::Node }
}

const fn token(id: u8) -> TokenId {
    TokenId([id; 8])
}

pub(super) fn resolve(step: &IdentityStep, model: &Model) -> Option<Command> {
    let nodes: Vec<u64> = (1..=model.last_node + 1).collect();
    let labels = || [("zone".to_owned(), "attic".to_owned())].into();
    let change = match *step {
        IdentityStep::Found => Change::Found(founding()),
        IdentityStep::CreateToken { id, user, uses, hours, limits } => Change::CreateToken(NewToken {
            id: token(id),
            key: Secret(vec![id; 32].into()),
            invite: match user {
                Some(user) => Invite::User { name: USERS[usize::from(user)].into() },
                None => Invite::Node {
                    role: if hours & 1 == 1 { NodeRole::Worker } else { NodeRole::Voter },
                    name: (limits & 1 == 1).then(|| "pi".into()),
                    labels: if limits & 2 == 2 { labels() } else { Default::default() },
                },
            },
            uses: uses.into(),
            life: Millis(u64::try_from(i64::from(hours) * 3_600_000).unwrap_or_default()),
            by: "ann".into(),
        }),
        IdentityStep::RevokeToken { id } => Change::RevokeToken { token: token(id) },
        IdentityStep::Enroll { token: id, is_node, key, raft, name, has_label } => {
            let labels = if has_label { labels() } else { Default::default() };
            let who = if is_node {
                Applicant::Node { admit: admit(key, raft, NAMES[usize::from(name)]), labels }
            } else {
                Applicant::User { key: PeerKey([key; 32]) }
            };
            let by = if id == 0 { Warrant::Tailnet(Rule::Tag("tag:swarm".into())) } else { Warrant::Token(token(id)) };
            Change::Enroll(Enroll { by, who })
        }
        IdentityStep::Step { node, step } => {
            let step = [Step::Registered, Step::Welcomed, Step::Synced, Step::Ready][usize::from(step)];
            Change::Step { node: NodeId(pick(node, &nodes)?), step }
        }
        IdentityStep::Revoke { node } => Change::Revoke { node: NodeId(pick(node, &nodes)?) },
        IdentityStep::SetUser { name, role } => {
            Change::SetUser { name: USERS[usize::from(name)].into(), role: Role::ALL[usize::from(role)] }
        }
        IdentityStep::RevokeUser { name } => Change::RevokeUser { name: USERS[usize::from(name)].into() },
        IdentityStep::AddRoot { kind, seed } => Change::AddRoot { kind: kind_of(kind), authority: authority(seed) },
        IdentityStep::DropRoot { kind, seed } => Change::DropRoot { kind: kind_of(kind), root: root_id(&authority(seed).certificate) },
        IdentityStep::Issued { node, seed } => {
            Change::Issued { node: NodeId(pick(node, &nodes)?), root: root_id(&authority(seed).certificate) }
        }
    };
    Some(Command::Identity(Box::new(change)))
}

pub(super) fn compare(ledger: &crate::ledger::Ledger, model: &Model) -> Result<(), TestCaseError> {
    let known = &model.identity;
    prop_assert_eq!(ledger.cluster(), known.cluster);
    prop_assert_eq!(ledger.authorities(Kind::Node), &known.nodes[..]);
    prop_assert_eq!(ledger.authorities(Kind::User), &known.users[..]);
    let mut tokens: Vec<_> = known.tokens.iter().collect();
    tokens.sort_by_key(|token| token.id);
    prop_assert_eq!(ledger.tokens().collect::<Vec<_>>(), tokens);
    let mut people: Vec<_> = known.people.iter().collect();
    people.sort_by_key(|user| user.name.clone());
    prop_assert_eq!(ledger.users().collect::<Vec<_>>(), people.clone());
    for key in 0..9 {
        let key = PeerKey([key; 32]);
        prop_assert_eq!(ledger.is_closed(&key), known.closed.contains(&key));
        prop_assert_eq!(ledger.user_of_key(&key), known.people.iter().find(|user| user.keys.contains(&key)));
    }
    prop_assert_eq!(ledger.identity_changed().0, known.changed);
    let after = swarm_proto::LogIndex(model.index / 2);
    let view = ledger.view(after);
    prop_assert_eq!(view.roots, model.roots());
    let changed: std::collections::BTreeMap<_, _> =
        people.into_iter().filter(|user| user.changed > after).map(|user| (user.name.clone(), user.clone())).collect();
    prop_assert_eq!(view.users, changed);
    let live = known.tokens.iter().map(|token| {
        let is_used_up = token.used_by.len() as u32 >= token.uses;
        if is_used_up { token.ends.min(UnixMillis(token.last_used.0 + 60_000)) } else { token.ends }
    });
    let live = live.max();
    prop_assert_eq!(view.enrol_until, live.unwrap_or_default());
    Ok(())
}
