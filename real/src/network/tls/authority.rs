//! The development authority: one that any machine can make for itself, and the certificates it issues.
//!
//! Deliberately absent: an operation's authority. Certificates of any other are as good, if they carry the names.

use super::name_of;
use crate::clock;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use worldline_proto::NodeId;
use worldline_system::time::UnixTime;

/// How many days an authority is valid.
pub const AUTHORITY_DAYS: u64 = 3_650;
/// How many days a certificate is valid.
pub const CERTIFICATE_DAYS: u64 = 365;

const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
const NS: u64 = 1_000_000_000;

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A role's process, by its node.
    Node(NodeId),
    /// Anybody else, by what it is called: a player, a tool.
    Stranger(String),
}

impl Holder {
    /// What its files are called.
    #[must_use]
    pub fn stem(&self) -> String {
        match self {
            Self::Node(node) => node.to_string(),
            Self::Stranger(name) => name.clone(),
        }
    }
}

/// Why an authority cannot be had, or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {problem}; expected {expected} in PEM", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: rcgen::Error,
        /// What it should be.
        expected: &'static str,
    },
    /// A host is no name that a certificate can carry.
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    /// A host is the name by which a node is called.
    #[error("`{0}` is a node's name, which only that node's certificate carries; expected a host name or an address")]
    Node(String),
    /// The certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A key and a certificate that vouches for others.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// A new one, valid from a day ago (clocks differ) for [`AUTHORITY_DAYS`].
    ///
    /// # Errors
    /// The system has no entropy to give.
    pub fn create() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = called("Worldline development authority");
        let now = clock::unix_now().as_nanos();
        limit(&mut params, now.saturating_sub(DAY_NS), now.saturating_add(AUTHORITY_DAYS * DAY_NS));
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// One that was saved.
    ///
    /// # Errors
    /// A file cannot be read, or is not a certificate or its key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|source| AuthorityError::Io { path: path.into(), source });
        let unreadable = |path: &Path, expected| {
            let path = path.to_owned();
            move |problem| AuthorityError::Unreadable { path, problem, expected }
        };
        let certificate_pem = read(certificate)?;
        let pair = KeyPair::from_pem(&read(key)?).map_err(unreadable(key, "the authority's private key"))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, pair)
            .map_err(unreadable(certificate, "the authority's certificate"))?;
        Ok(Self { issuer, certificate_pem })
    }

    /// Its certificate, which everybody trusts, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key, in PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Writes `ca.pem` and `ca.key`, readable by its user only, into `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// The folder or a file cannot be made; there is an authority already.
    pub fn save(&self, folder: &Path) -> Result<(), AuthorityError> {
        write_both(folder, "ca", &self.certificate_pem, &self.key_pem())
    }

    /// A certificate for `holder` that is valid from a day ago for [`CERTIFICATE_DAYS`]; `hosts` are more names and addresses
    /// by which it can be reached.
    ///
    /// # Errors
    /// A host is no name; the system has no entropy to give.
    pub fn issue(&self, holder: &Holder, hosts: &[String]) -> Result<Issued, AuthorityError> {
        let now = clock::unix_now().as_nanos();
        let from = UnixTime::from_nanos(now.saturating_sub(DAY_NS));
        let until = UnixTime::from_nanos(now.saturating_add(CERTIFICATE_DAYS * DAY_NS));
        self.issue_for(holder, hosts, from, until)
    }

    /// Whether a certificate can carry these hosts.
    ///
    /// # Errors
    /// The first of them that is no name.
    pub fn may_certify(hosts: &[String]) -> Result<(), AuthorityError> {
        hosts.iter().try_for_each(|host| host_name(host).map(drop))
    }

    /// As [`Authority::issue`], valid from and until a time of the wall clock, in whole seconds.
    ///
    /// # Errors
    /// A host is no name; the system has no entropy to give.
    pub fn issue_for(
        &self,
        holder: &Holder,
        hosts: &[String],
        from: UnixTime,
        until: UnixTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        if let Holder::Node(node) = holder {
            params.subject_alt_names.push(dns_name(&name_of(*node))?);
        }
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.distinguished_name = called(&holder.stem());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        limit(&mut params, from.as_nanos(), until.as_nanos());
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { stem: holder.stem(), certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// A certificate and its private key.
pub struct Issued {
    stem: String,
    /// The certificate, in PEM.
    pub certificate_pem: String,
    /// The private key, in PEM.
    pub key_pem: String,
}

impl Issued {
    /// Writes `n7.pem` and `n7.key` (or whatever the holder is called), the key readable by its user only.
    ///
    /// # Errors
    /// The folder or a file cannot be made; there is such a file already.
    pub fn save(&self, folder: &Path) -> Result<(), AuthorityError> {
        write_both(folder, &self.stem, &self.certificate_pem, &self.key_pem)
    }
}

fn host_name(host: &str) -> Result<SanType, AuthorityError> {
    // Such a name would let its holder serve as another node.
    if super::node_in(host).is_some() {
        return Err(AuthorityError::Node(host.to_owned()));
    }
    host.parse().map(SanType::IpAddress).or_else(|_| dns_name(host))
}

fn dns_name(host: &str) -> Result<SanType, AuthorityError> {
    let name = rustls::pki_types::DnsName::try_from(host).map_err(|_| AuthorityError::Host(host.to_owned()))?;
    let name = name.as_ref().try_into().map_err(|_| AuthorityError::Host(host.to_owned()))?;
    Ok(SanType::DnsName(name))
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn limit(params: &mut CertificateParams, from_unix_ns: u64, until_unix_ns: u64) {
    let at = |unix_ns: u64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(unix_ns / NS);
    (params.not_before, params.not_after) = (at(from_unix_ns), at(until_unix_ns));
}

fn write_both(folder: &Path, stem: &str, certificate: &str, key: &str) -> Result<(), AuthorityError> {
    fs::create_dir_all(folder).map_err(|source| AuthorityError::Io { path: folder.to_owned(), source })?;
    for (extension, text, mode) in [("key", key, 0o600), ("pem", certificate, 0o644)] {
        let path = folder.join(format!("{stem}.{extension}"));
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| AuthorityError::Io { path, source })?;
    }
    Ok(())
}
