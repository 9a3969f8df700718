//! Who is who: TLS 1.3 with certificates of one authority, and the node a certificate names.
//!
//! * A role's certificate carries the DNS name `n7.worldline`; that is the name by which node 7 is called, wherever it listens.
//! * A certificate without such a name, or none, makes its holder a stranger: a player.
//! * Every check of an [`Identity`] happens when it is loaded, and names the file that is wrong.
//!
//! Deliberately absent: TLS 1.2, resumption (a restarted process shares no state with its former life), revocation (the
//! development authority issues anew instead).

mod authority;
mod identity;

pub use authority::{AUTHORITY_DAYS, Authority, AuthorityError, CERTIFICATE_DAYS, Holder, Issued};
pub use identity::{Identity, IdentityError, Wrong};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use std::sync::Arc;
use worldline_proto::NodeId;

/// What a node's name ends with.
const DOMAIN: &str = ".worldline";

/// The name of a node in certificates.
#[must_use]
pub fn name_of(node: NodeId) -> String {
    format!("{node}{DOMAIN}")
}

/// The name by which a node is called.
pub(crate) fn server_name(node: NodeId) -> ServerName<'static> {
    ServerName::try_from(name_of(node)).expect("a letter and digits before a domain are a name")
}

/// The node that a certificate names; `None` where it names none, or several.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut nodes = certificate.valid_dns_names().filter_map(node_in);
    let node = nodes.next()?;
    nodes.all(|other| other == node).then_some(node)
}

fn node_in(name: &str) -> Option<NodeId> {
    let number = name.strip_suffix(DOMAIN)?.strip_prefix('n')?.parse().ok().map(NodeId)?;
    // One way of writing it: no sign, no leading zero.
    (name_of(number) == name).then_some(number)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Identity {
    /// How this identity serves: it asks for a certificate and goes on without one, so that a stranger can be told apart.
    ///
    /// # Errors
    /// The identity is a stranger's: it has no certificate to show.
    pub(crate) fn server(&self, alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        let (chain, key) = self.shown().ok_or_else(|| rustls::Error::General("no certificate to serve with".into()))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// How this identity calls others: it shows its certificate if it has one.
    ///
    /// # Errors
    /// The certificate cannot be shown; ruled out by what [`Identity::load`] has checked.
    pub(crate) fn client(&self, alpn: &[u8]) -> Result<ClientConfig, rustls::Error> {
        let roots: Arc<RootCertStore> = self.roots();
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots);
        let mut config = match self.shown() {
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_name_and_nothing_else_is_read_as_one() {
        assert_eq!(node_in("n7.worldline"), Some(NodeId(7)));
        assert_eq!(name_of(NodeId(7)), "n7.worldline");
        for name in ["n07.worldline", "n+7.worldline", "n.worldline", "7.worldline", "n7.worldline.org", "localhost"] {
            assert_eq!(node_in(name), None, "{name}");
        }
        assert_eq!(node_in("n4294967296.worldline"), None, "above every node");
    }
}
