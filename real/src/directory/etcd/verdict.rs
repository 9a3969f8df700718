//! What an error of the etcd client says about the request: never left, certainly refused, or nobody knows.
//!
//! Only what etcd says before it proposes a request, or after it has applied it, is certain. Its errors are told apart by code
//! *and* message, since neither alone is enough: a lost leader and a timeout share a code, and a reply that is too large for
//! the client shares one with a compacted revision. What is not listed here is `Unknown`.

use crate::directory::client::Verdict;
use etcd_client::Error;
use tonic::{Code, ConnectError, Status};
use worldline_system::Refusal;

/// What an error says about the request, before more is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// No more than this.
    Ended(Verdict),
    /// The database is full. A write may have been applied nevertheless: etcd looks at its quota before it proposes a write
    /// and again while it applies it, and the second time it says no *and* writes.
    Full,
    /// The revision has been compacted away; from where on one can read is still to be asked.
    Compacted,
}

impl From<Error> for Said {
    fn from(error: Error) -> Self {
        said(&error)
    }
}

impl From<Said> for Verdict {
    fn from(said: Said) -> Self {
        match said {
            Said::Ended(verdict) => verdict,
            Said::Full | Said::Compacted => Self::Unknown,
        }
    }
}

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        said(&error).into()
    }
}

/// etcd's own errors: `api/v3rpc/rpctypes/error.go`.
const KNOWN: [(Code, &str, Said); 20] = {
    use Said::{Compacted, Full};
    const fn refused(refusal: Refusal) -> Said {
        Said::Ended(Verdict::Refused(refusal))
    }
    [
        (Code::Unavailable, "etcdserver: no leader", refused(Refusal::NoLeader)),
        (Code::Unavailable, "etcdserver: not capable", refused(Refusal::NotServing)),
        (Code::ResourceExhausted, "etcdserver: too many requests", refused(Refusal::Busy)),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Full),
        (Code::NotFound, "etcdserver: requested lease not found", refused(Refusal::LeaseNotFound)),
        (Code::FailedPrecondition, "etcdserver: lease already exists", refused(Refusal::LeaseExists)),
        (Code::OutOfRange, "etcdserver: too large lease TTL", refused(Refusal::Malformed)),
        (Code::InvalidArgument, "etcdserver: too many operations in txn request", refused(Refusal::TooManyOperations)),
        (Code::InvalidArgument, "etcdserver: duplicate key given in txn request", refused(Refusal::Malformed)),
        (Code::InvalidArgument, "etcdserver: key is not provided", refused(Refusal::Malformed)),
        (Code::InvalidArgument, "etcdserver: request is too large", refused(Refusal::Malformed)),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Compacted),
        (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", refused(Refusal::Malformed)),
        (Code::PermissionDenied, "etcdserver: permission denied", refused(Refusal::NotServing)),
        (Code::InvalidArgument, "etcdserver: user name is empty", refused(Refusal::NotServing)),
        (Code::InvalidArgument, "etcdserver: user name not found", refused(Refusal::NotServing)),
        (Code::InvalidArgument, "etcdserver: revision of auth store is old", refused(Refusal::NotServing)),
        (Code::Unauthenticated, "etcdserver: invalid auth token", refused(Refusal::NotServing)),
        (Code::InvalidArgument, WRONG_PASSWORD, refused(Refusal::NotServing)),
        (Code::FailedPrecondition, NO_AUTHENTICATION, refused(Refusal::NotServing)),
    ]
};

const WRONG_PASSWORD: &str = "etcdserver: authentication failed, invalid user ID or password";
const NO_AUTHENTICATION: &str = "etcdserver: authentication is not enabled";

/// What an error of a request says about it.
pub(super) fn said(error: &Error) -> Said {
    let never_left = match error {
        Error::GRpcStatus(status) => has_not_connected(status),
        Error::TransportError(error) => has_not_connected(error),
        _ => false,
    };
    if never_left {
        return Said::Ended(Verdict::NeverLeft);
    }
    match error {
        Error::GRpcStatus(status) => of_status(status),
        _ => Said::Ended(Verdict::Unknown),
    }
}

fn of_status(status: &Status) -> Said {
    let known = KNOWN.iter().find(|(code, message, _)| *code == status.code() && *message == status.message());
    known.map_or(Said::Ended(Verdict::Unknown), |(.., said)| *said)
}

fn has_not_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.into_iter().any(<dyn std::error::Error>::is::<ConnectError>)
}

/// An error in words for an operator, with its causes.
pub(super) fn in_words(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => match status.message() {
            WRONG_PASSWORD => "it refuses the user or the password".to_owned(),
            NO_AUTHENTICATION => "it has no users, so the address must name none".to_owned(),
            "etcdserver: user name is empty" => "it wants a user and a password in the address".to_owned(),
            message if !message.is_empty() => message.to_owned(),
            _ => status.code().to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no connection")]
    struct Outer(#[source] ConnectError);

    #[test]
    fn only_what_etcd_says_before_proposing_or_after_applying_is_certain() {
        let said = |code, message: &str| Verdict::from(Error::GRpcStatus(Status::new(code, message)));
        assert_eq!(said(Code::Unavailable, "etcdserver: no leader"), Verdict::Refused(Refusal::NoLeader));
        for message in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: leader changed",
            "etcdserver: server stopped",
            "transport is closing",
            "tcp connect error",
        ] {
            assert_eq!(said(Code::Unavailable, message), Verdict::Unknown, "{message}");
        }
        let too_large = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        assert_eq!(said(Code::OutOfRange, too_large), Verdict::Unknown, "the answer, and so a write, was on its way");
        assert_eq!(said(Code::DeadlineExceeded, "etcdserver: no leader"), Verdict::Unknown, "another code");
    }

    #[test]
    fn what_found_no_connection_has_never_left() {
        let mut status = Status::unavailable("tcp connect error");
        status.set_source(std::sync::Arc::new(ConnectError("refused".into())));
        assert_eq!(Verdict::from(Error::GRpcStatus(status)), Verdict::NeverLeft);
        let mut status = Status::unavailable("tcp connect error");
        status.set_source(std::sync::Arc::new(Outer(ConnectError("refused".into()))));
        assert_eq!(Verdict::from(Error::GRpcStatus(status)), Verdict::NeverLeft, "deep in the chain");
    }
}
