//! Who may come in, rule by rule.

use swarm_proto::{
    Code, Cursor, Millis, RootId, TokenId,
    access::Role,
    identity::{Applicant, Authority, Change, Enroll, Invite, Kind, NewToken, NodeRole, Secret, Step, Warrant},
    ledger::What,
    limits,
    token::root_id,
};

use super::*;

fn change(change: Change) -> Command {
    Command::Identity(Box::new(change))
}

fn token(id: u8, invite: Invite, uses: u32) -> Command {
    let (id, key) = (TokenId([id; 8]), Secret(vec![id; 32].into()));
    change(Change::CreateToken(NewToken { id, key, invite, uses, life: Millis(10_000), by: "local".into() }))
}

fn any_node() -> Invite {
    Invite::Node { role: NodeRole::Voter, name: None, labels: Default::default() }
}

fn enroll(id: u8, key: u8, raft: u8) -> Command {
    let who = Applicant::Node { admit: admit(key, raft, "pi"), labels: Default::default() };
    change(Change::Enroll(Enroll { by: Warrant::Token(TokenId([id; 8])), who }))
}

fn login(id: u8, key: u8) -> Command {
    change(Change::Enroll(Enroll { by: Warrant::Token(TokenId([id; 8])), who: Applicant::User { key: PeerKey([key; 32]) } }))
}

fn code(applied: &Applied) -> Option<Code> {
    if let Applied::Refused(problem) = applied { Some(problem.code) } else { None }
}

fn founded() -> Desk {
    let mut desk = Desk::new();
    assert_eq!(desk.one(change(Change::Found(founding()))), Applied::Done);
    desk
}

#[test]
fn fifty_race_for_one_use_and_one_wins() {
    let mut desk = founded();
    desk.one(token(1, any_node(), 1));
    let race = desk.all((10..60).map(|key| enroll(1, key, key)).collect());
    assert_eq!(race.iter().filter(|applied| matches!(applied, Applied::Admitted(_))).count(), 1);
    assert_eq!(race.iter().filter(|applied| code(applied) == Some(Code::Denied)).count(), 49);
    assert_eq!(race[0], Applied::Admitted(NodeId(2)));
    // its answer was lost: the same key is told the same, later too, and uses nothing up
    assert_eq!(desk.one(enroll(1, 10, 10)), Applied::Admitted(NodeId(2)));
    assert_eq!(desk.ledger.nodes().count(), 2);
    assert_eq!(desk.ledger.tokens().next().map(swarm_proto::identity::TokenRecord::uses_left), Some(0));
}

#[test]
fn a_token_ends_with_its_time_its_uses_and_by_revocation() {
    let mut desk = founded();
    desk.one(token(1, any_node(), 3));
    assert_eq!(desk.ledger.view(LogIndex(0)).enrol_until, UnixMillis(11_000));
    assert!(matches!(desk.one(enroll(1, 10, 10)), Applied::Admitted(_)));
    desk.now = 10_999;
    assert!(matches!(desk.one(enroll(1, 11, 11)), Applied::Admitted(_)));
    desk.now = 11_000;
    assert_eq!(code(&desk.one(enroll(1, 12, 12))), Some(Code::Denied));
    desk.now = 1;
    assert_eq!(code(&desk.one(enroll(1, 12, 12))), Some(Code::Denied), "a leader whose clock is behind brings nothing back");
    let mut desk = founded();
    desk.one(token(2, any_node(), 9));
    desk.one(change(Change::RevokeToken { token: TokenId([2; 8]) }));
    assert_eq!(code(&desk.one(enroll(2, 12, 12))), Some(Code::Denied));
}

#[test]
fn a_token_lets_in_only_whom_it_was_made_for() {
    let mut desk = founded();
    desk.one(token(1, Invite::Node { role: NodeRole::Voter, name: Some("desk9".into()), labels: Default::default() }, 1));
    assert_eq!(code(&desk.one(enroll(1, 10, 10))), Some(Code::Denied));
    desk.one(token(2, Invite::Node { role: NodeRole::Voter, name: None, labels: [("zone".into(), "attic".into())].into() }, 1));
    assert_eq!(code(&desk.one(enroll(2, 10, 10))), Some(Code::Denied));
    assert_eq!(code(&desk.one(login(2, 10))), Some(Code::Denied), "a person with a node's token");
    assert_eq!(code(&desk.one(token(3, Invite::User { name: "ann".into() }, 1))), Some(Code::NotFound));
    desk.one(change(Change::SetUser { name: "ann".into(), role: Role::Operator }));
    desk.one(token(3, Invite::User { name: "ann".into() }, 1));
    assert_eq!(code(&desk.one(enroll(3, 10, 10))), Some(Code::Denied), "a node with a person's line");
    assert_eq!(desk.ledger.nodes().count(), 1);
    // none of this used anything up
    assert!(desk.ledger.tokens().all(|token| token.uses_left() == 1));
}

#[test]
fn whoever_was_let_in_as_a_worker_never_votes() {
    let mut desk = founded();
    desk.one(token(1, Invite::Node { role: NodeRole::Worker, name: None, labels: Default::default() }, 1));
    assert_eq!(desk.one(enroll(1, 10, 10)), Applied::Admitted(NodeId(2)));
    let may_vote = |desk: &Desk, id| desk.ledger.node(NodeId(id)).is_some_and(|record| record.may_vote);
    assert!(admit(10, 10, "pi").may_vote && !may_vote(&desk, 2));
    // nor when it says again what it would like, nor with a new raft directory
    assert_eq!(desk.one(Command::Admit(admit(10, 10, "pi2"))), Applied::Admitted(NodeId(2)));
    assert!(!may_vote(&desk, 2));
    assert_eq!(desk.one(Command::Admit(admit(10, 11, "pi"))), Applied::Admitted(NodeId(3)));
    assert!(!may_vote(&desk, 3));
}

#[test]
fn what_is_closed_out_never_comes_back() {
    let mut desk = founded();
    desk.one(token(1, any_node(), 9));
    for (key, how) in [(10, change(Change::Revoke { node: NodeId(2) })), (11, Command::Leave { node: NodeId(3) })] {
        assert!(matches!(desk.one(enroll(1, key, key)), Applied::Admitted(_)));
        assert_eq!(desk.one(how), Applied::Done);
        assert_eq!(code(&desk.one(enroll(1, key, key))), Some(Code::Denied));
        assert_eq!(code(&desk.one(enroll(1, key, key + 100))), Some(Code::Denied), "nor with another directory");
        assert_eq!(code(&desk.one(Command::Admit(admit(key, key + 50, "pi")))), Some(Code::Denied), "nor by its certificate");
        assert!(desk.ledger.is_closed(&PeerKey([key; 32])));
    }
    let view = desk.ledger.view(LogIndex(0));
    assert!(view.nodes[&NodeId(2)].is_gone && view.nodes[&NodeId(3)].is_gone);
}

#[test]
fn a_wiped_directory_is_a_new_node_and_the_old_id_is_gone() {
    let mut desk = founded();
    desk.one(token(1, any_node(), 1));
    assert_eq!(desk.one(enroll(1, 10, 10)), Applied::Admitted(NodeId(2)));
    assert_eq!(desk.one(Command::Admit(admit(10, 20, "pi"))), Applied::Admitted(NodeId(3)));
    assert!(desk.ledger.node(NodeId(2)).unwrap().is_gone);
    assert_eq!(code(&desk.one(change(Change::Revoke { node: NodeId(2) }))), Some(Code::Conflict), "its host is there under n3");
    assert_eq!(code(&desk.one(Command::Admit(admit(10, 10, "pi")))), Some(Code::Conflict), "the old directory is not taken up again");
}

#[test]
fn a_user_and_every_key_go_together() {
    let mut desk = founded();
    desk.one(change(Change::SetUser { name: "ann".into(), role: Role::Submitter }));
    desk.one(token(1, Invite::User { name: "ann".into() }, 2));
    assert_eq!(desk.one(login(1, 40)), Applied::Done);
    assert_eq!(desk.ledger.user_of_key(&PeerKey([40; 32])).map(|user| (user.name.as_str(), user.role)), Some(("ann", Role::Submitter)));
    desk.one(change(Change::SetUser { name: "ann".into(), role: Role::Admin }));
    assert_eq!(desk.ledger.user_of_key(&PeerKey([40; 32])).map(|user| user.role), Some(Role::Admin));
    desk.one(change(Change::RevokeUser { name: "ann".into() }));
    assert_eq!(desk.ledger.user_of_key(&PeerKey([40; 32])), None);
    assert_eq!(code(&desk.one(login(1, 41))), Some(Code::Denied), "the unused line went too");
    assert_eq!(code(&desk.one(change(Change::SetUser { name: "local".into(), role: Role::Admin }))), Some(Code::BadRequest));
}

#[test]
fn steps_come_in_order_and_once() {
    let mut desk = founded();
    desk.one(token(1, any_node(), 1));
    desk.one(enroll(1, 10, 10));
    let from = desk.ledger.applied();
    let step = |step| change(Change::Step { node: NodeId(2), step });
    assert_eq!(code(&desk.one(step(Step::Ready))), Some(Code::Conflict));
    for next in [Step::Welcomed, Step::Welcomed, Step::Synced, Step::Ready, Step::Welcomed] {
        assert_eq!(desk.one(step(next)), Applied::Done);
    }
    let node = NodeId(2);
    let told: Vec<What> = desk.ledger.events_after(Cursor { index: from, sub: 9 }, 9).map(|event| event.what.clone()).collect();
    assert_eq!(told, [What::NodeWelcomed { node }, What::NodeSynced { node }, What::NodeReady { node }]);
}

#[test]
fn an_authority_is_replaced_and_never_the_last_one_dropped() {
    let mut desk = founded();
    let old = root_id(&founding().nodes.certificate);
    assert_eq!(desk.ledger.node(NodeId(1)).unwrap().root, RootId::default(), "it was a member before there was an authority");
    assert_eq!(code(&desk.one(change(Change::DropRoot { kind: Kind::Node, root: old }))), Some(Code::Conflict));
    let authority = Authority { certificate: vec![9; 40].into(), key: Secret(vec![9; 48].into()) };
    let new = root_id(&authority.certificate);
    assert_eq!(desk.one(change(Change::AddRoot { kind: Kind::Node, authority: authority.clone() })), Applied::Done);
    assert_eq!(desk.ledger.view(LogIndex(0)).roots.nodes[0], authority.certificate);
    let third = Authority { certificate: vec![8; 40].into(), ..authority };
    assert_eq!(code(&desk.one(change(Change::AddRoot { kind: Kind::Node, authority: third }))), Some(Code::Conflict));
    assert_eq!(desk.one(change(Change::Issued { node: NodeId(1), root: new })), Applied::Done);
    assert_eq!(desk.one(change(Change::DropRoot { kind: Kind::Node, root: old })), Applied::Done);
    assert_eq!(code(&desk.one(change(Change::Issued { node: NodeId(1), root: old }))), Some(Code::NotFound));
    assert_eq!(desk.ledger.authorities(Kind::Node).len(), 1);
}

#[test]
fn bounds_of_tokens_and_users() {
    let small = Bounds { tokens: 3, users: 3, ..Bounds::STANDARD };
    let mut desk = Desk::with(small);
    assert_eq!(code(&desk.one(token(1, any_node(), 1))), Some(Code::Conflict), "not before the swarm has authorities");
    desk.one(change(Change::Found(founding())));
    assert_eq!(code(&desk.one(change(Change::Found(founding())))), Some(Code::Conflict));
    for n in 1..=4 {
        let is_over = (n > 3).then_some(Code::Busy);
        assert_eq!(code(&desk.one(token(n, any_node(), 1))), is_over);
        assert_eq!(code(&desk.one(change(Change::SetUser { name: format!("u{n}"), role: Role::Observer }))), is_over);
    }
    for (uses, is_fine) in
        [(0, false), (1, true), (limits::TOKEN_USES - 1, true), (limits::TOKEN_USES, true), (limits::TOKEN_USES + 1, false)]
    {
        let mut desk = founded();
        assert_eq!(code(&desk.one(token(1, any_node(), uses))).is_none(), is_fine, "{uses} uses");
    }
    let mut desk = founded();
    desk.one(change(Change::SetUser { name: "ann".into(), role: Role::Observer }));
    desk.one(token(1, Invite::User { name: "ann".into() }, 99));
    for n in 1..=limits::USER_KEYS + 1 {
        let is_over = (n > limits::USER_KEYS).then_some(Code::Busy);
        assert_eq!(code(&desk.one(login(1, 100 + n as u8))), is_over, "{n} keys");
    }
}
