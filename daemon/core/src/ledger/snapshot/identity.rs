//! Authorities, tokens, users and closed keys, behind everything else.

use serde::{Deserialize, Serialize};
use swarm_proto::{
    ClusterId, LogIndex,
    identity::{Authority, TokenRecord, UserRecord},
};

use super::{Identity, Ledger, LedgerError, Reader, Writer};

#[derive(Serialize, Deserialize)]
struct IdentityHead {
    cluster: Option<ClusterId>,
    nodes: Vec<Authority>,
    users: Vec<Authority>,
    changed: LogIndex,
}

impl Ledger {
    pub(super) fn encode_identity(&self, out: &mut Writer) {
        let Identity { cluster, nodes, users, tokens, people, awaited, closed, changed } = &self.identity;
        out.put(&IdentityHead { cluster: *cluster, nodes: nodes.clone(), users: users.clone(), changed: *changed });
        out.put_all(tokens.len(), tokens.values());
        out.put_all(people.len(), people.values());
        out.put_all(awaited.len(), awaited.iter());
        out.put_all(closed.len(), closed.iter());
    }

    pub(super) fn read_identity(&mut self, rows: &mut Reader<'_>) -> Result<(), LedgerError> {
        let head: IdentityHead = rows.take()?;
        self.identity =
            Identity { cluster: head.cluster, nodes: head.nodes, users: head.users, changed: head.changed, ..Identity::default() };
        for _ in 0..rows.take::<u64>()? {
            let token: TokenRecord = rows.take()?;
            self.identity.tokens.insert(token.id, token);
        }
        for _ in 0..rows.take::<u64>()? {
            let user: UserRecord = rows.take()?;
            self.identity.people.insert(user.name.clone(), user);
        }
        for _ in 0..rows.take::<u64>()? {
            self.identity.awaited.insert(rows.take()?);
        }
        for _ in 0..rows.take::<u64>()? {
            self.identity.closed.push_back(rows.take()?);
        }
        Ok(())
    }
}
