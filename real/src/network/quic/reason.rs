//! Close reasons on the wire: the application's error codes, and what QUIC itself has to say.

use quinn::{ConnectionError, VarInt};
use worldline_system::doors::network::CloseReason;

/// The error code of a reason that one side tells the other.
pub(crate) fn code(reason: CloseReason) -> VarInt {
    VarInt::from_u32(match reason {
        CloseReason::Closed => 0,
        CloseReason::ProtocolError => 1,
        CloseReason::Superseded => 2,
        CloseReason::Overflow => 3,
        CloseReason::TooMany => 4,
        CloseReason::Reset => 5,
        CloseReason::IdleTimeout => 6,
        CloseReason::HandshakeTimeout => 7,
        CloseReason::Barred => 8,
    })
}

/// The reason of an error code; one that a later version has added is an orderly close.
fn reason(code: VarInt) -> CloseReason {
    match code.into_inner() {
        1 => CloseReason::ProtocolError,
        2 => CloseReason::Superseded,
        3 => CloseReason::Overflow,
        4 => CloseReason::TooMany,
        5 => CloseReason::Reset,
        6 => CloseReason::IdleTimeout,
        7 => CloseReason::HandshakeTimeout,
        8 => CloseReason::Barred,
        _ => CloseReason::Closed,
    }
}

/// Why a connection has ended, as far as QUIC knows.
pub(crate) fn reason_of(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => reason(close.error_code),
        ConnectionError::TimedOut => CloseReason::IdleTimeout,
        ConnectionError::Reset => CloseReason::Reset,
        ConnectionError::LocallyClosed => CloseReason::Closed,
        ConnectionError::CidsExhausted => CloseReason::TooMany,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            CloseReason::TooMany
        }
        // It was closed before its handshake was complete, when no other code may be sent (RFC 9000, 10.2.3).
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::APPLICATION_ERROR =>
        {
            CloseReason::Closed
        }
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch => CloseReason::ProtocolError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_from_its_code() {
        let all = [
            CloseReason::HandshakeTimeout,
            CloseReason::IdleTimeout,
            CloseReason::Reset,
            CloseReason::Closed,
            CloseReason::ProtocolError,
            CloseReason::Superseded,
            CloseReason::Overflow,
            CloseReason::TooMany,
            CloseReason::Barred,
        ];
        for expected in all {
            assert_eq!(reason(code(expected)), expected);
        }
        assert_eq!(reason(VarInt::from_u32(4_000)), CloseReason::Closed);
    }
}
