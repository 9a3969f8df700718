//! Peers that speak QUIC and TLS as anybody can, and need not keep to anything above it.

use crate::node::World;
use quinn::{
    ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};
use worldline_real::network::tls::Issued;

pub const CLIENT: &[u8] = b"worldline-client/1";
pub const PEER: &[u8] = b"worldline-peer/1";

type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub fn from_files((certificate, key): (PathBuf, PathBuf)) -> Shown {
    let read = |path| fs::read(path).expect("there");
    from_pem(&read(certificate), &read(key))
}

pub fn from_issued(issued: &Issued) -> Shown {
    from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())
}

fn from_pem(certificate: &[u8], key: &[u8]) -> Shown {
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().expect("PEM");
    (chain, PrivateKeyDer::from_pem_slice(key).expect("PEM"))
}

pub fn client_tls(world: &World, alpn: &[u8], shown: Option<Shown>) -> rustls::ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = fs::read(world.ca()).expect("there");
    roots.add(CertificateDer::from_pem_slice(&ca).expect("PEM")).expect("an authority");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("known")
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).expect("a pair"),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// An endpoint that can call anybody, with room for datagrams that are too long.
pub fn client(world: &World, alpn: &[u8], shown: Option<Shown>) -> Endpoint {
    let crypto = QuicClientConfig::try_from(client_tls(world, alpn, shown)).expect("TLS 1.3");
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = TransportConfig::default();
    transport.initial_mtu(1_400);
    config.transport_config(Arc::new(transport));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    endpoint.set_default_client_config(config);
    endpoint
}

pub async fn connect(endpoint: &Endpoint, address: SocketAddr, name: &str) -> Connection {
    endpoint.connect(address, name).expect("a name").await.expect("a peer that listens")
}

pub fn server_tls(alpn: &[u8], (chain, key): Shown) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("known")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// An endpoint that serves with whatever certificate.
pub fn server(alpn: &[u8], shown: Shown) -> Endpoint {
    let crypto = QuicServerConfig::try_from(server_tls(alpn, shown)).expect("TLS 1.3");
    let config = ServerConfig::with_crypto(Arc::new(crypto));
    Endpoint::server(config, "127.0.0.1:0".parse().expect("an address")).expect("a free port")
}

/// The application's error code that the other side has closed with.
pub async fn closed_with(connection: &Connection) -> u64 {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}
