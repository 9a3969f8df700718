//! What a process shows of itself and whom it trusts, read from PEM files and checked.

use super::{node_of, provider};
use crate::clock;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    sign::CertifiedKey,
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use worldline_proto::NodeId;

/// Why an identity cannot be used: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {wrong}", path.display())]
pub struct IdentityError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a file of an identity.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It is not PEM.
    #[error("holds no {expected} in PEM ({problem})")]
    NotPem {
        /// What it should hold.
        expected: &'static str,
        /// What the parser says.
        problem: String,
    },
    /// What it holds is no certificate that can be trusted.
    #[error("is no certificate of an authority ({0})")]
    NotAnAuthority(String),
    /// What it holds is no certificate, or is not for what it is used for.
    #[error("is no usable certificate ({0})")]
    NotACertificate(String),
    /// What it holds is no key that can sign.
    #[error("holds no usable private key ({0})")]
    NotAKey(String),
    /// The key belongs to another certificate.
    #[error("is not the private key of {}", certificate.display())]
    AnotherKey {
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// It is out of date.
    #[error("has expired")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet; is the clock right?")]
    NotValidYet,
    /// Somebody else has signed it.
    #[error("was not signed by the authority in {}", authority.display())]
    AnotherAuthority {
        /// The authority's file.
        authority: PathBuf,
    },
}

/// Whom a process trusts and, unless it is a stranger's, what it shows of itself.
pub struct Identity {
    roots: Arc<RootCertStore>,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    node: Option<NodeId>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { roots: Arc::clone(&self.roots), shown: self.shown(), node: self.node }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the authority's certificate and this process's certificate and private key.
    ///
    /// # Errors
    /// See [`Wrong`]: each file that is read is checked against the others and the wall clock.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let roots = roots(ca)?;
        let chain = certificates(certificate)?;
        let at_certificate = |wrong| IdentityError { path: certificate.to_owned(), wrong };
        let at_key = |wrong| IdentityError { path: key.to_owned(), wrong };
        check(&chain, &roots, ca).map_err(at_certificate)?;
        let private =
            PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|problem| at_key(not_pem("private key", problem)))?;
        CertifiedKey::from_der(chain.clone(), private.clone_key(), &provider()).map_err(|problem| {
            at_key(match problem {
                rustls::Error::InconsistentKeys(_) => Wrong::AnotherKey { certificate: certificate.to_owned() },
                other => Wrong::NotAKey(other.to_string()),
            })
        })?;
        let node = chain.first().and_then(node_of);
        Ok(Self { roots, shown: Some((chain, private)), node })
    }

    /// A stranger's: it trusts the authority and shows nothing.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn stranger(ca: &Path) -> Result<Self, IdentityError> {
        Ok(Self { roots: roots(ca)?, shown: None, node: None })
    }

    /// The node that its certificate names.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.node
    }

    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    pub(super) fn shown(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        self.shown.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()))
    }

    /// A secret that every life of this process derives alike, one for each purpose. `None` for a stranger.
    pub(crate) fn secret(&self, purpose: &str) -> Option<ring::hmac::Tag> {
        let (_, key) = self.shown.as_ref()?;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.secret_der());
        Some(ring::hmac::sign(&key, purpose.as_bytes()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|error| IdentityError { path: path.to_owned(), wrong: error.into() })
}

fn not_pem(expected: &'static str, problem: pem::Error) -> Wrong {
    Wrong::NotPem { expected, problem: problem.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let wrong = |problem| IdentityError { path: path.to_owned(), wrong: not_pem("certificate", problem) };
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(wrong)?;
    if chain.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn roots(ca: &Path) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|problem| IdentityError {
            path: ca.to_owned(),
            wrong: Wrong::NotAnAuthority(problem.to_string()),
        })?;
    }
    Ok(Arc::new(roots))
}

/// Whether the authority vouches for the certificate, now.
fn check(chain: &[CertificateDer<'static>], roots: &RootCertStore, ca: &Path) -> Result<(), Wrong> {
    let (first, others) = chain.split_first().expect("a chain that was read is not empty");
    let unusable = |problem: webpki::Error| Wrong::NotACertificate(problem.to_string());
    let certificate = webpki::EndEntityCert::try_from(first).map_err(unusable)?;
    let algorithms = provider().signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(Duration::from_nanos(clock::unix_now().as_nanos()));
    for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
        let verified = certificate.verify_for_usage(algorithms.all, &roots.roots, others, now, usage, None, None);
        verified.map_err(|problem| match problem {
            webpki::Error::CertExpired { .. } => Wrong::Expired,
            webpki::Error::CertNotValidYet { .. } => Wrong::NotValidYet,
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Wrong::AnotherAuthority { authority: ca.to_owned() }
            }
            other => unusable(other),
        })?;
    }
    Ok(())
}
