//! What is asked of a member, as calls to etcd.

use super::{Member, codec, verdict::Said};
use crate::directory::client::{
    Among, Changed, Coming, Found, Latest, Pending, Range, Renewals, Stands, State, Told, Verdict, Watched,
};
use etcd_client::{
    Compare as Condition, CompareOp, Error, EventType, GetOptions, KeyValue, LeaseGrantOptions, LeaseKeepAliveStream,
    LeaseKeeper, PutOptions, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
    WatchResponse,
};
use futures_util::StreamExt as _;
use std::{
    future::ready,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    Refusal,
    doors::directory::{Compare, Consistency, Family, GapCause, Key, Page, Record, Transacted, Transaction, Write},
    time::Duration,
};

const NANOS_PER_SEC: u64 = 1_000_000_000;

pub(super) async fn grant(member: &Member, lease: LeaseId, ttl: Duration) -> Result<(), Verdict> {
    let (id, ttl_s) = (signed(lease.get()), signed(ttl.as_nanos().div_ceil(NANOS_PER_SEC).max(1)));
    let granted = member.lease().grant(ttl_s, Some(LeaseGrantOptions::new().with_id(id))).await;
    match granted.map_err(Said::from) {
        Ok(_) => Ok(()),
        // It may stand nevertheless. What etcd has answered it will not do later: what it has now tells.
        Err(Said::Full) => match member.lease().time_to_live(id, None).await {
            Ok(lease) if lease.ttl() < 0 => Err(Verdict::Refused(Refusal::DatabaseFull)),
            Ok(_) | Err(_) => Err(Verdict::Unknown),
        },
        Err(said) => Err(said.into()),
    }
}

pub(super) async fn transact(member: &Member, transaction: &Transaction) -> Result<Transacted, Verdict> {
    let writes: Vec<TxnOp> = transaction.writes.iter().map(operation).collect();
    let otherwise: Vec<TxnOp> = transaction.otherwise.iter().map(|&key| TxnOp::get(codec::path(key), None)).collect();
    let asked = Txn::new()
        .when(transaction.compares.iter().map(condition).collect::<Vec<_>>())
        .and_then(writes)
        .or_else(otherwise);
    let response = match member.kv().txn(asked).await.map_err(Said::from) {
        Ok(response) => response,
        Err(Said::Full) => return Err(resolve_full(member, transaction).await),
        Err(said) => return Err(said.into()),
    };
    let revision = codec::revision(response.header().ok_or(Verdict::Unknown)?.revision());
    let mut otherwise = Vec::new();
    if !response.succeeded() {
        for response in response.op_responses() {
            if let TxnOpResponse::Get(found) = response {
                otherwise.extend(found.kvs().iter().filter_map(codec::readable));
            }
        }
    }
    Ok(Transacted { succeeded: response.succeeded(), revision, otherwise })
}

/// etcd has said of a write that its database is full, and may have written nevertheless. If it has, a key that the write
/// compares and puts does not stand any more as the write wanted it: one that does tells that nothing was written.
async fn resolve_full(member: &Member, transaction: &Transaction) -> Verdict {
    let puts =
        |key: Key| transaction.writes.iter().any(|write| matches!(write, Write::Put { key: put, .. } if *put == key));
    let tells = |compare: &&Compare| !matches!(compare, Compare::Present(_)) && puts(compare.key());
    let Some(compare) = transaction.compares.iter().find(tells) else { return Verdict::Unknown };
    let Ok(found) = member.kv().get(codec::path(compare.key()), None).await else { return Verdict::Unknown };
    let stands = found.kvs().first().map(|pair| codec::revision(pair.mod_revision()));
    let as_wanted = match *compare {
        Compare::Absent(_) => stands.is_none(),
        Compare::Unchanged(_, revision) => stands == Some(revision),
        Compare::Present(_) => false,
    };
    if as_wanted { Verdict::Refused(Refusal::DatabaseFull) } else { Verdict::Unknown }
}

fn condition(compare: &Compare) -> Condition {
    let path = codec::path(compare.key());
    match *compare {
        Compare::Absent(_) => Condition::create_revision(path, CompareOp::Equal, 0),
        Compare::Present(_) => Condition::create_revision(path, CompareOp::Greater, 0),
        // To etcd a key that is absent was last changed by revision 0; to the door it was not changed at all.
        Compare::Unchanged(_, Revision(0)) => Condition::version(path, CompareOp::Less, 0),
        Compare::Unchanged(_, revision) => Condition::mod_revision(path, CompareOp::Equal, signed(revision.0)),
    }
}

fn operation(write: &Write) -> TxnOp {
    match *write {
        Write::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(signed(lease.get())));
            TxnOp::put(codec::path(key), codec::encode(value), options)
        }
        Write::Delete(key) => TxnOp::delete(codec::path(key), None),
    }
}

pub(super) async fn read(member: &Member, asked: Range) -> Result<Page, Verdict> {
    let Range { family, after, limit, mut at, consistency } = asked;
    let (first, end) = codec::range(family);
    let mut from = after.map_or_else(|| first.as_bytes().to_vec(), |key| behind(codec::path(key).as_bytes()));
    loop {
        let options = GetOptions::new().with_range(end).with_limit(i64::from(limit));
        let options = options.with_revision(at.map_or(0, |at| signed(at.0)));
        let found = fetch(member, from, options, consistency).await?;
        let revision = at.unwrap_or(codec::revision(found.header().ok_or(Verdict::Unknown)?.revision()));
        let records: Vec<Record> = found.kvs().iter().filter_map(codec::readable).collect();
        let more = found.more();
        match found.kvs().last() {
            // A page that has nothing to show must not look like the last one.
            Some(last) if records.is_empty() && more => (from, at) = (behind(last.key()), Some(revision)),
            _ => return Ok(Page { records, revision, more }),
        }
    }
}

/// The first key behind this one, in etcd's order.
fn behind(path: &[u8]) -> Vec<u8> {
    [path, &[0]].concat()
}

pub(super) async fn get(member: &Member, key: Key, consistency: Consistency) -> Result<Found, Verdict> {
    let found = fetch(member, codec::path(key).into_bytes(), GetOptions::new(), consistency).await?;
    let revision = codec::revision(found.header().ok_or(Verdict::Unknown)?.revision());
    Ok((found.kvs().first().and_then(codec::readable), revision))
}

async fn fetch(
    member: &Member,
    from: Vec<u8>,
    options: GetOptions,
    consistency: Consistency,
) -> Result<etcd_client::GetResponse, Verdict> {
    let found = match consistency {
        Consistency::Linearizable => member.kv().get(from, Some(options)).await,
        Consistency::Serializable => member.kv_without_leader().get(from, Some(options.with_serializable())).await,
    };
    match found.map_err(Said::from) {
        Ok(found) => Ok(found),
        Err(Said::Compacted) => Err(compacted(member).await),
        Err(said) => Err(said.into()),
    }
}

/// The refusal of what asks for a revision that has been compacted away.
async fn compacted(member: &Member) -> Verdict {
    match oldest(member).await {
        Ok(oldest) => Verdict::Refused(Refusal::Compacted { oldest }),
        Err(verdict) => verdict,
    }
}

/// The oldest revision that can be read. etcd tells it only to a watch that begins before it.
async fn oldest(member: &Member) -> Result<Revision, Verdict> {
    let mut stream =
        member.watch().watch(codec::path(Key::Leader), Some(WatchOptions::new().with_start_revision(1))).await?;
    while let Some(response) = stream.message().await? {
        if response.canceled() {
            return Ok(codec::revision(response.compact_revision()));
        }
    }
    Err(Verdict::Unknown)
}

/// Opens a watch.
pub(super) async fn watch(member: &Member, family: Family, from: Revision) -> Result<Watched, Verdict> {
    let (first, end) = codec::range(family);
    let options = WatchOptions::new().with_range(end).with_start_revision(signed(from.0));
    let mut stream = member.watch().watch(first, Some(options)).await?;
    let created = stream.message().await?.ok_or(Verdict::Unknown)?;
    if created.canceled() {
        return Err(match created.compact_revision() {
            0 => Verdict::Refused(Refusal::NotServing),
            _ => compacted(member).await,
        });
    }
    let state = state(created.header().ok_or(Verdict::Unknown)?);
    let news: Coming<_> =
        Box::pin(stream.scan((), |(), response| ready(response.ok().map(|response| told(&response)))));
    Ok(Watched { state, news })
}

fn told(response: &WatchResponse) -> Result<Told, GapCause> {
    if response.canceled() {
        return Err(if response.compact_revision() > 0 { GapCause::Compacted } else { GapCause::Cancelled });
    }
    let last = response.events().iter().filter_map(|event| Some(event.kv()?.mod_revision())).max();
    let changed = last.map(|last| Changed {
        revision: codec::revision(last),
        changes: response.events().iter().filter_map(|event| codec::change(event).ok()).collect(),
        latest: left(response),
    });
    Ok(Told { state: response.header().map(state), changed })
}

fn state(header: &ResponseHeader) -> State {
    let revision = codec::revision(header.revision());
    State { cluster: header.cluster_id(), term: header.raft_term(), revision }
}

/// What the last of these changes left.
fn left(response: &WatchResponse) -> Option<Latest> {
    let event = response.events().last()?;
    let pair = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => standing(pair),
        EventType::Delete => Latest::nothing_at(pair.key()),
    })
}

fn standing(pair: &KeyValue) -> Latest {
    let mut hasher = DefaultHasher::new();
    pair.value().hash(&mut hasher);
    let stands = Stands {
        created: codec::revision(pair.create_revision()),
        modified: codec::revision(pair.mod_revision()),
        version: pair.version().unsigned_abs(),
        lease: pair.lease().cast_unsigned(),
        value_hash: hasher.finish(),
    };
    Latest { path: pair.key().to_vec(), stands: Some(stands) }
}

/// What had changed last before a revision; refused where the one before it cannot be read.
pub(super) async fn latest(member: &Member, among: Among<'_>, before: Revision) -> Result<Option<Latest>, Verdict> {
    let before = before.0.saturating_sub(1).max(1);
    let options = GetOptions::new().with_revision(signed(before)).with_limit(1);
    let (first, options) = match among {
        Among::Path(path) => (path, options),
        Among::Family(family) => {
            let (first, end) = codec::range(family);
            (first.as_bytes(), options.with_range(end).with_sort(SortTarget::Mod, SortOrder::Descend))
        }
    };
    match fetch(member, first.to_vec(), options, Consistency::Serializable).await {
        Ok(found) => Ok(found.kvs().first().map(standing)),
        // A revision that is yet to come: nothing of it can have been compacted.
        Err(Verdict::Refused(Refusal::Malformed)) => Ok(None),
        // What happened in the oldest revision that can be read is partly gone: what it deleted.
        Err(Verdict::Refused(Refusal::Compacted { oldest })) => {
            Err(Verdict::Refused(Refusal::Compacted { oldest: oldest.next() }))
        }
        Err(verdict) => Err(verdict),
    }
}

/// An open stream of renewals.
#[derive(Debug)]
struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// Opens a stream of renewals. The client renews once to do so, and keeps to itself for how long.
pub(super) async fn renewals(member: &Member, lease: LeaseId) -> Result<Box<dyn Renewals>, Verdict> {
    match member.lease().keep_alive(signed(lease.get())).await {
        Ok((keeper, answers)) => Ok(Box::new(Stream { keeper, answers })),
        // The only error of this kind: the answer had no time to live left.
        Err(Error::LeaseKeepAliveError(_)) => Err(Verdict::Refused(Refusal::LeaseNotFound)),
        Err(error) => Err(error.into()),
    }
}

impl Renewals for Stream {
    fn renew(&mut self) -> Pending<'_, Result<Option<Duration>, Verdict>> {
        Box::pin(async {
            self.keeper.keep_alive().await.map_err(|_| Verdict::Unknown)?;
            let answer = self.answers.message().await.map_err(|_| Verdict::Unknown)?.ok_or(Verdict::Unknown)?;
            let left_s = u64::try_from(answer.ttl()).ok().filter(|&left_s| left_s > 0);
            Ok(left_s.map(Duration::from_secs))
        })
    }
}

/// Ends a lease.
pub(super) async fn revoke(member: &Member, lease: LeaseId) -> Result<(), Verdict> {
    member.lease().revoke(signed(lease.get())).await?;
    Ok(())
}

/// A number as etcd takes it. Ids and revisions are below its bound; what is not compares with nothing.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
