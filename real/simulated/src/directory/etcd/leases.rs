//! Leases.

use super::{Etcd, Told, done, not_served};
use crate::directory::words;
use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseTimeToLiveRequest,
    PbLeaseTimeToLiveResponse,
};
use futures_util::stream;
use tonic::{Request, Response, Status, Streaming};
use worldline_proto::LeaseId;
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Submission},
    time::Duration,
};

fn lease(id: i64) -> LeaseId {
    LeaseId::from_bits(words::unsigned(id))
}

impl Etcd {
    /// A renewal. A lease that is not there has no time left to live.
    async fn renew(&self, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let Answer::KeptAlive(outcome) = self.ask(Submission::KeepAlive(lease(id))).await? else {
            unreachable!("an answer to a renewal")
        };
        let ttl = match outcome {
            Outcome::Refused(Refusal::LeaseNotFound) => 0,
            other => words::signed(done(other)?.as_nanos() / 1_000_000_000),
        };
        Ok(PbLeaseKeepAliveResponse { header: words::header(self.revision().await?), id, ttl })
    }
}

#[tonic::async_trait]
impl PbLeaseService for Etcd {
    type LeaseKeepAliveStream = Told<PbLeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { id, ttl } = request.into_inner();
        let grant = Submission::Grant { lease: lease(id), ttl: Duration::from_secs(words::unsigned(ttl)) };
        let Answer::Granted(outcome) = self.ask(grant).await? else { unreachable!("an answer to a grant") };
        done(outcome)?;
        Ok(Response::new(PbLeaseGrantResponse { id, ttl, ..PbLeaseGrantResponse::default() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let revoke = Submission::Revoke(lease(request.get_ref().id));
        let Answer::Revoked(outcome) = self.ask(revoke).await? else { unreachable!("an answer to a revocation") };
        done(outcome)?;
        Ok(Response::new(PbLeaseRevokeResponse::default()))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let renewals = stream::unfold((self.clone(), request.into_inner()), async |(etcd, mut asked)| {
            let answer = match asked.message().await {
                Ok(Some(asked)) => etcd.renew(asked.id).await,
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            Some((answer, (etcd, asked)))
        });
        Ok(Response::new(Box::pin(renewals)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        not_served()
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        not_served()
    }
}
