//! etcd's gRPC interface in front of the simulated directory: as much of it as the adapter uses.

mod kv;
mod leases;
mod watch;

use super::{
    kernel::{Ask, Asks},
    words,
};
use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbKvServer, PbLeaseServer,
    PbMaintenanceServer, PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse, PbWatchServer,
};
use futures_util::{Stream, stream};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tonic::{
    Request, Response, Status,
    transport::server::{Connected, Server},
};
use worldline_proto::Revision;
use worldline_real::machine::{self, Machine};
use worldline_system::{
    Outcome,
    doors::directory::{Answer, Consistency, Event, Family, Key, Page, Submission},
    limits::DIRECTORY_PAGE,
    outcome::End,
};

/// The version that it says it is.
const VERSION: &str = "3.5.16";

/// A stream of answers.
pub(super) type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The services. Clones ask the same directory.
#[derive(Clone)]
struct Etcd(Asks);

/// Serves on this machine until its host dies.
pub async fn serve(machine: &dyn Machine, address: SocketAddr, asks: Asks) -> Result<(), Box<dyn std::error::Error>> {
    let etcd = Etcd(asks);
    let listener = machine.listen(address).await?;
    let accepted = stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(Accepted);
        Some((accepted, listener))
    });
    Server::builder()
        .add_service(PbKvServer::new(etcd.clone()))
        .add_service(PbLeaseServer::new(etcd.clone()))
        .add_service(PbWatchServer::new(etcd.clone()))
        .add_service(PbMaintenanceServer::new(etcd))
        .serve_with_incoming(Box::pin(accepted))
        .await?;
    Ok(())
}

fn not_served<T>() -> Result<T, Status> {
    Err(Status::unimplemented("the adapter does not use this"))
}

impl Etcd {
    /// Asks the directory; its answer, and behind it all news.
    async fn begin(&self, submission: Submission) -> Result<(Answer, mpsc::UnboundedReceiver<Event>), Status> {
        let (told, mut heard) = mpsc::unbounded_channel();
        let gone = || Status::unavailable("etcdserver: server stopped");
        self.0.send(Ask { submission, told }).map_err(|_| gone())?;
        match heard.recv().await {
            Some(Event::Answered { answer, .. }) => Ok((*answer, heard)),
            _ => Err(gone()),
        }
    }

    async fn ask(&self, submission: Submission) -> Result<Answer, Status> {
        Ok(self.begin(submission).await?.0)
    }

    /// The directory's revision, by a read that needs no quorum.
    async fn revision(&self) -> Result<Revision, Status> {
        let get = Submission::Get { key: Key::Leader, consistency: Consistency::Serializable };
        match self.ask(get).await? {
            Answer::Got(outcome) => done(outcome).map(|(_, revision)| revision),
            other => unreachable!("{other:?} to a read"),
        }
    }

    /// All of a family, at one revision.
    async fn whole(&self, family: Family, at: Option<Revision>, consistency: Consistency) -> Result<Page, Status> {
        let mut whole: Option<Page> = None;
        loop {
            let after = whole.as_ref().and_then(|page| page.records.last()).map(|record| record.key);
            let at = whole.as_ref().map(|page| page.revision).or(at);
            let read = Submission::Read { family, after, limit: DIRECTORY_PAGE, at, consistency };
            let Answer::Read(outcome) = self.ask(read).await? else { unreachable!("an answer to a read") };
            let page = done(outcome)?;
            let more = page.more;
            match &mut whole {
                Some(whole) => whole.records.extend(page.records),
                None => whole = Some(page),
            }
            if !more {
                return Ok(whole.expect("one page was read"));
            }
        }
    }
}

/// What was done, or how etcd says that it was not.
fn done<T>(outcome: Outcome<T>) -> Result<T, Status> {
    match outcome {
        Outcome::Done(done) => Ok(done),
        Outcome::Refused(refusal) => Err(words::status(End::Refused(refusal))),
        Outcome::Unknown => Err(words::status(End::Unknown)),
    }
}

#[tonic::async_trait]
impl PbMaintenanceService for Etcd {
    type SnapshotStream = Told<PbSnapshotResponse>;

    async fn status(&self, _: Request<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        Ok(Response::new(PbStatusResponse { version: VERSION.to_owned(), ..PbStatusResponse::default() }))
    }

    async fn alarm(&self, _: Request<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        not_served()
    }

    async fn defragment(&self, _: Request<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        not_served()
    }

    async fn hash(&self, _: Request<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        not_served()
    }

    async fn hash_kv(&self, _: Request<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        not_served()
    }

    async fn snapshot(&self, _: Request<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        not_served()
    }

    async fn move_leader(&self, _: Request<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        not_served()
    }

    async fn downgrade(&self, _: Request<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        not_served()
    }
}

/// A connection that was accepted.
struct Accepted(Box<dyn machine::Stream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
