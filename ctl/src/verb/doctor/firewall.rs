//! Whether a firewall is at work here, and what to tell it. It is not opened, and its rules are not read line by line: whether
//! packets pass is what the peers' answers show.

use std::path::Path;

use super::{Finding, host::Host, host::output};

/// `is_reached`: every peer answered.
pub(super) async fn examine(host: &Host, is_reached: bool) -> Finding {
    judge(active().await, host, is_reached)
}

/// What is at work, by name.
async fn active() -> Option<&'static str> {
    if std::fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|conf| conf.lines().any(|line| line.trim() == "ENABLED=yes")) {
        return Some("ufw");
    }
    if output("firewall-cmd", &["--state"]).await.is_some_and(|state| state.trim() == "running") {
        return Some("firewalld");
    }
    let rules = if Path::new("/proc/net").exists() { output("nft", &["list", "ruleset"]).await } else { None };
    rules.filter(|rules| drops_input(rules)).map(|_| "nftables")
}

/// Whether what is not named is dropped on its way in.
fn drops_input(rules: &str) -> bool {
    rules.lines().any(|line| line.contains("hook input") && (line.contains("policy drop") || line.contains("policy reject")))
}

fn judge(active: Option<&'static str>, host: &Host, is_reached: bool) -> Finding {
    let Some(name) = active else { return Finding::ok("firewall", "none is seen at work on this host") };
    if is_reached {
        return Finding::ok("firewall", format!("{name} is at work, and peers are reached"));
    }
    let (control, bulk, api) = (host.config.mesh.control_port, host.config.mesh.bulk_port, host.config.api.port);
    let interface = host.mesh.as_ref().and_then(|mesh| mesh.interface.clone()).unwrap_or_else(|| "MESH_INTERFACE".into());
    let fix = match name {
        "ufw" => {
            let rule = format!("ufw allow in on {interface} proto");
            format!("{rule} udp to any port {control},{bulk} && {rule} tcp to any port {api}")
        }
        "firewalld" => format!("firewall-cmd --permanent --zone=trusted --add-interface={interface} && firewall-cmd --reload"),
        _ => {
            let rule = format!("nft insert rule inet filter input iifname {interface}");
            format!("{rule} udp dport {{ {control}, {bulk} }} accept && {rule} tcp dport {api} accept")
        }
    };
    Finding::warn("firewall", format!("{name} is at work here, and not every peer answers"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::doctor::Level;

    #[test]
    fn a_firewall_is_a_warning_only_while_somebody_is_not_reached() {
        let host = Host { config: mesh_config::Config::new("a"), mesh: None };
        assert_eq!(judge(None, &host, false).level, Level::Ok);
        assert_eq!(judge(Some("ufw"), &host, true).level, Level::Ok);
        for name in ["ufw", "firewalld", "nftables"] {
            let finding = judge(Some(name), &host, false);
            assert_eq!((finding.level, finding.fix.contains("MESH_INTERFACE")), (Level::Warn, true), "{finding:?}");
            // a zone is trusted as a whole; a rule names every port, the API's too
            let is_whole = name == "firewalld" || ["4747", "4748", "4749"].iter().all(|port| finding.fix.contains(port));
            assert!(is_whole, "{finding:?}");
        }
    }

    #[test]
    fn a_chain_that_drops_by_default_is_seen() {
        assert!(drops_input("table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n"));
        assert!(!drops_input("  type filter hook input priority 0; policy accept;\n type filter hook forward priority 0; policy drop;"));
    }
}
