//! Blobs.

use swarm_proto::api::{BlobView, StoredView};

use super::bytes;
use crate::output::{
    Card, Look, Row, View,
    table::{number, text},
};

impl View for BlobView {
    fn columns(is_wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["DIGEST", "SIZE", "HOLDERS"];
        if is_wide {
            columns.extend(["KEPT", "NODES"]);
        }
        columns
    }

    fn row(&self, look: Look) -> Row {
        let mut row = vec![text(self.digest.to_string()), number(bytes(self.size)), number(self.holders.len())];
        if look.is_wide {
            row.extend([text(kept(self.encrypted)), text(names(self))]);
        }
        row
    }

    fn card(&self, _: Look) -> Card {
        Card::default()
            .line("digest", text(self.digest.to_string()))
            .line("size", text(format!("{} ({} bytes)", bytes(self.size), self.size)))
            .line("kept", text(kept(self.encrypted)))
            .line("holders", text(names(self)))
    }
}

fn names(blob: &BlobView) -> String {
    blob.holders.iter().map(|holder| holder.name.as_str()).collect::<Vec<_>>().join(", ")
}

const fn kept(encrypted: bool) -> &'static str {
    if encrypted { "encrypted" } else { "plain" }
}

impl View for StoredView {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["DIGEST", "SIZE", "KEPT", "NEEDED BY"]
    }

    fn row(&self, _: Look) -> Row {
        vec![text(self.digest.to_string()), number(bytes(self.size)), text(kept(self.encrypted)), text(self.pins.join(", "))]
    }

    fn card(&self, _: Look) -> Card {
        Card::default()
            .line("digest", text(self.digest.to_string()))
            .line("size", text(bytes(self.size)))
            .line("kept", text(kept(self.encrypted)))
            .line("needed by", text(self.pins.join(", ")))
    }
}
