//! Who owns an entity: what an operator asks.

use super::{
    codec::{self, Unreadable},
    verdict,
};
use crate::{
    directory::{Boxed, Config, Endpoint},
    machine,
};
use etcd_client::{Error, GetOptions};
use std::time::Duration;
use tokio::time::timeout;
use worldline_proto::{EntityId, Revision};
use worldline_system::doors::directory::{Key, Ownership, Record, Value, Worker};

/// How long one member may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

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
pub fn who_owns(config: Config, entity: EntityId) -> Boxed<Result<Owner, WhoOwnsError>> {
    Box::pin(async move {
        let mut problems = Vec::new();
        for endpoint in &config.endpoints {
            match timeout(PATIENCE, ask(endpoint, entity)).await {
                Ok(Ok(owner)) => return Ok(owner),
                Ok(Err(WhoOwnsError::Unreachable(problem))) => problems.push(problem),
                Ok(Err(unreadable)) => return Err(unreadable),
                Err(_) => problems.push(format!("etcd at {endpoint} serves no read within {} s", PATIENCE.as_secs())),
            }
        }
        Err(WhoOwnsError::Unreachable(problems.join("; ")))
    })
}

async fn ask(endpoint: &Endpoint, entity: EntityId) -> Result<Owner, WhoOwnsError> {
    let (member, _ends) = super::connect(&machine::Own, endpoint, 0).await.map_err(WhoOwnsError::Unreachable)?;
    let refused = |error: Error| {
        WhoOwnsError::Unreachable(format!("etcd at {endpoint} serves no read: {}", verdict::in_words(&error)))
    };
    let found = member.kv().get(codec::path(Key::Owner(entity)), None).await.map_err(refused)?;
    let read = found.header().map_or(0, |header| header.revision());
    let record = found.kvs().first().map(codec::record).transpose()?;
    let mut owner = Owner { record: None, worker: None, revision: codec::revision(read) };
    if let Some(Record { value: Value::Owner(ownership), mod_revision, .. }) = record {
        owner.record = Some((ownership, mod_revision));
        let options = GetOptions::new().with_revision(read);
        let found = member.kv().get(codec::path(Key::Worker(ownership.lease)), Some(options)).await.map_err(refused)?;
        if let Some(Value::Worker(worker)) = found.kvs().first().map(codec::record).transpose()?.map(|it| it.value) {
            owner.worker = Some(worker);
        }
    }
    Ok(owner)
}
