//! Names into addresses, by the system's resolvers and by MagicDNS.
//!
//! A resolver is made anew for every look, from the resolv.conf of that moment: tailscaled rewrites that file when it comes up, and
//! nothing remembers an answer, so that MagicDNS's ten minutes do not keep a host at an address that it has left. Looks are rare;
//! what this costs is a file read and a socket. Only A and AAAA are asked, because MagicDNS knows no others.

use std::{net::IpAddr, time::Duration};

use futures_util::future::join_all;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::Name,
    system_conf,
};
use mesh_detect::{Kind, tailscale};

/// The longest that one name may take, whatever its servers do.
const TIME: Duration = Duration::from_secs(6);
/// The longest that one server may take to answer one question.
const SERVER_TIME: Duration = Duration::from_secs(2);
/// No answer is believed for longer, whatever its TTL.
const TTL: Duration = Duration::from_secs(5);
/// Addresses taken from one name.
const MOST: usize = 16;

/// Where names are asked.
pub(super) struct Names {
    /// `None`: as the system is set up at that moment.
    servers: Option<ResolverConfig>,
}

impl Names {
    pub(super) const fn of_system() -> Self {
        Self { servers: None }
    }

    /// Of servers that do not change.
    #[cfg(test)]
    pub(super) const fn of(servers: ResolverConfig) -> Self {
        Self { servers: Some(servers) }
    }

    /// The addresses of each name, in the order of the names; all are asked at once.
    pub(super) async fn resolve<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        mesh: &mesh_detect::Mesh,
    ) -> Vec<Result<Vec<IpAddr>, String>> {
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            return Vec::new();
        }
        match self.resolvers(mesh) {
            Ok(resolvers) => join_all(names.into_iter().map(|name| first_answer(&resolvers, name))).await,
            Err(why) => names.into_iter().map(|_| Err(why.clone())).collect(),
        }
    }

    /// The system's servers, and after them MagicDNS itself where the system does not know it.
    fn resolvers(&self, mesh: &mesh_detect::Mesh) -> Result<Vec<TokioResolver>, String> {
        let system = match &self.servers {
            Some(servers) => Ok(servers.clone()),
            None => system_conf::read_system_conf().map(|(config, _)| config).map_err(|e| format!("resolv.conf cannot be read: {e}")),
        };
        let domain = mesh.domain.as_deref().and_then(|domain| Name::from_ascii(domain).ok());
        let mut configs = Vec::new();
        let mut is_magic_known = mesh.kind != Kind::Tailscale || self.servers.is_some();
        if let Ok(config) = &system {
            is_magic_known |= config.name_servers().iter().any(|server| server.ip == tailscale::RESOLVER);
            configs.push(with_search(config.clone(), domain.as_ref()));
        }
        if !is_magic_known {
            let magic = ResolverConfig::from_parts(None, Vec::new(), vec![NameServerConfig::udp_and_tcp(tailscale::RESOLVER)]);
            configs.push(with_search(magic, domain.as_ref()));
        }
        if let (Err(why), true) = (system, configs.is_empty()) {
            return Err(why);
        }
        configs.into_iter().map(|config| build(config).map_err(|e| e.to_string())).collect()
    }
}

fn with_search(mut config: ResolverConfig, domain: Option<&Name>) -> ResolverConfig {
    if let Some(domain) = domain.filter(|domain| !config.search().contains(domain)) {
        config.add_search(domain.clone());
    }
    config
}

fn build(config: ResolverConfig) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    set(builder.options_mut());
    builder.build()
}

fn set(options: &mut ResolverOpts) {
    options.timeout = SERVER_TIME;
    options.attempts = 1;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.positive_max_ttl = Some(TTL);
    options.negative_max_ttl = Some(TTL);
}

/// Of several resolvers the first that knows the name; else what the first of them said.
async fn first_answer(resolvers: &[TokioResolver], name: &str) -> Result<Vec<IpAddr>, String> {
    let mut complaint = None;
    for resolver in resolvers {
        let why = match tokio::time::timeout(TIME, resolver.lookup_ip(name)).await {
            Ok(Ok(found)) => {
                let addresses: Vec<IpAddr> = found.iter().take(MOST).collect();
                if !addresses.is_empty() {
                    return Ok(addresses);
                }
                "DNS knows the name, but no address of it".to_owned()
            }
            Ok(Err(error)) => said(&error),
            Err(_) => format!("DNS does not answer within {} s", TIME.as_secs()),
        };
        complaint.get_or_insert(why);
    }
    Err(complaint.unwrap_or_else(|| "there is nobody to ask".into()))
}

fn said(error: &hickory_resolver::net::NetError) -> String {
    if error.is_nx_domain() {
        "DNS does not know the name".into()
    } else if error.is_no_records_found() {
        "DNS knows no address of the name".into()
    } else {
        format!("DNS does not answer: {error}")
    }
}
