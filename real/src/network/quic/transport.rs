//! How QUIC is set up: periods as the simulator has them, windows that bound what a peer can make this process keep.

use super::{frames::Dialect, runtime::VERSION};
use crate::network::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, tls::Identity};
use quinn::{
    ClientConfig, ConnectionIdGenerator, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use std::{sync::Arc, time::Duration};
use worldline_system::doors::network::StreamClass;

/// What a peer may send on one stream before the role has taken it, in bytes: some frames of the largest size.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a client may send on all streams before the role has taken it, in bytes.
const CLIENT_WINDOW: u32 = 256 * 1024;
/// What a role may send on all streams before this role has taken it, in bytes.
const PEER_WINDOW: u32 = 1024 * 1024;
/// What this side keeps on all streams until it is acknowledged, in bytes.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Datagrams that wait to be read, and to be sent, in bytes; the oldest make room.
const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Handshakes that quinn keeps until this side has looked at them.
const INCOMING_MAX: usize = 1_024;
/// What quinn keeps of the packets of all of those, in bytes.
const INCOMING_BUFFER: u64 = 4 * 1024 * 1024;
/// How often a connection of a former life is told that it is over, at most.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// The windows that a connection begins with are a client's; a role's are larger.
pub(super) fn widen(connection: &quinn::Connection, dialect: Dialect) {
    if dialect == Dialect::Peer {
        connection.set_receive_window(VarInt::from_u32(PEER_WINDOW));
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("some seconds are few milliseconds to QUIC");
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(StreamClass::ALL.len() as u32))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CLIENT_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    Arc::new(transport)
}

/// Connection ids and reset tokens that every life of a process derives alike from its private key, so that a restarted one
/// can tell the peers of its former life that their connections are over. A stranger has no former life.
pub(super) fn endpoint(identity: &Identity) -> EndpointConfig {
    let mut config = match identity.secret("worldline QUIC stateless reset") {
        Some(secret) => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_ref());
            EndpointConfig::new(Arc::new(key))
        }
        None => EndpointConfig::default(),
    };
    if let Some(secret) = identity.secret("worldline QUIC connection ids")
        && let Some((key, _)) = secret.as_ref().split_first_chunk::<8>()
    {
        let key = u64::from_be_bytes(*key);
        config.cid_generator(move || {
            Box::new(HashedConnectionIdGenerator::from_key(key)) as Box<dyn ConnectionIdGenerator>
        });
    }
    // Every packet of this version then shows its fixed bit: garbage can be told apart.
    config.grease_quic_bit(false).supported_versions(vec![VERSION]).min_reset_interval(RESET_INTERVAL);
    config
}

pub(super) fn server(identity: &Identity, dialects: &[Dialect]) -> Result<ServerConfig, rustls::Error> {
    let alpn: Vec<&[u8]> = dialects.iter().map(|dialect| dialect.alpn()).collect();
    let crypto = QuicServerConfig::try_from(identity.server(&alpn)?).map_err(unsuited)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport())
        .retry_token_lifetime(HANDSHAKE_TIMEOUT)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER);
    Ok(config)
}

pub(super) fn client(identity: &Identity, dialect: Dialect) -> Result<ClientConfig, rustls::Error> {
    let crypto = QuicClientConfig::try_from(identity.client(dialect.alpn())?).map_err(unsuited)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport()).version(VERSION);
    Ok(config)
}

fn unsuited(error: quinn::crypto::rustls::NoInitialCipherSuite) -> rustls::Error {
    rustls::Error::General(error.to_string())
}
