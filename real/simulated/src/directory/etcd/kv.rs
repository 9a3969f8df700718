//! Ranges and transactions.

use super::{Etcd, Told, done, not_served};
use crate::directory::words;
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbResponseOp, PbTxnOpResponse, PbTxnRequest,
    PbTxnResponse,
};
use tonic::{Request, Response, Status};
use worldline_proto::Revision;
use worldline_system::doors::directory::{Answer, Consistency, Submission, Transacted};

/// etcd's numbers of how a range is sorted.
const BY_LAST_CHANGE: i32 = 3;
const DESCENDING: i32 = 2;

impl Etcd {
    /// What a request's range has at its revision.
    async fn found(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Status> {
        let consistency = if request.serializable { Consistency::Serializable } else { Consistency::Linearizable };
        let at = (request.revision > 0).then(|| Revision(words::unsigned(request.revision)));
        let page = self.whole(words::family(&request.key)?, at, consistency).await?;
        let mut kvs: Vec<_> = page.records.iter().map(words::pair).collect();
        kvs.retain(|pair| match &request.range_end[..] {
            [] => pair.key == request.key,
            end => (&request.key[..]..end).contains(&&pair.key[..]),
        });
        match (request.sort_target, request.sort_order) {
            (BY_LAST_CHANGE, DESCENDING) => kvs.sort_by_key(|pair| std::cmp::Reverse(pair.mod_revision)),
            _ => kvs.sort_by(|one, other| one.key.cmp(&other.key)),
        }
        let count = kvs.len();
        if request.limit > 0 {
            kvs.truncate(usize::try_from(request.limit).unwrap_or(usize::MAX));
        }
        // etcd's header has the present revision, also of a read of the past.
        let revision = if at.is_some() { self.revision().await?.max(page.revision) } else { page.revision };
        let more = kvs.len() < count;
        Ok(PbRangeResponse { header: words::header(revision), kvs, more, count: words::signed(count as u64) })
    }
}

#[tonic::async_trait]
impl PbKvService for Etcd {
    type RangeStreamStream = Told<PbRangeStreamResponse>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        Ok(Response::new(self.found(request.get_ref()).await?))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let transaction = words::transaction(request.get_ref())?;
        let read = transaction.otherwise.clone();
        let Answer::Transacted(outcome) = self.ask(Submission::Transact(transaction.into())).await? else {
            unreachable!("an answer to a transaction")
        };
        let Transacted { succeeded, revision, otherwise } = done(outcome)?;
        let found = |key| {
            // Who reads a key twice is answered twice.
            let kvs: Vec<_> = otherwise.iter().find(|record| record.key == key).map(words::pair).into_iter().collect();
            let response = PbRangeResponse {
                header: words::header(revision),
                count: words::signed(kvs.len() as u64),
                kvs,
                more: false,
            };
            PbResponseOp { response: Some(PbTxnOpResponse::ResponseRange(response)) }
        };
        let responses = if succeeded { vec![] } else { read.into_iter().map(found).collect() };
        Ok(Response::new(PbTxnResponse { header: words::header(revision), succeeded, responses }))
    }

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        not_served()
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        not_served()
    }

    async fn delete_range(&self, _: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        not_served()
    }

    async fn compact(&self, _: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        not_served()
    }
}
