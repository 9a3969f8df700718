//! Watches: one on each stream.

use super::{Etcd, Told};
use crate::directory::words;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures_util::stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use worldline_proto::Revision;
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Event, GapCause, Submission},
    outcome::End,
};

impl Etcd {
    /// Sets a watch up and tells of it until it ends.
    async fn tell(self, submission: Submission, to: mpsc::UnboundedSender<Result<PbWatchResponse, Status>>) {
        let (revision, begun) = match (self.revision().await, self.begin(submission).await) {
            (Ok(revision), Ok(begun)) => (revision, begun),
            (Err(status), _) | (_, Err(status)) => return drop(to.send(Err(status))),
        };
        let (answer, mut news) = begun;
        let Answer::Watching(outcome) = answer else { unreachable!("an answer to a watch") };
        let header = words::header(revision);
        // etcd says that a watch stands before it looks whether what it begins with is gone.
        drop(to.send(Ok(PbWatchResponse { header, created: true, ..PbWatchResponse::default() })));
        let compacted = match outcome {
            Outcome::Done(()) => None,
            // From the revision behind the compacted one on a watch may begin.
            Outcome::Refused(Refusal::Compacted { oldest }) => Some(oldest.0.saturating_sub(1)),
            Outcome::Refused(refusal) => return drop(to.send(Err(words::status(End::Refused(refusal))))),
            Outcome::Unknown => return drop(to.send(Err(words::status(End::Unknown)))),
        };
        let cancelled = |compacted| PbWatchResponse {
            header,
            canceled: true,
            compact_revision: words::signed(compacted),
            ..PbWatchResponse::default()
        };
        if let Some(compacted) = compacted {
            return drop(to.send(Ok(cancelled(compacted))));
        }
        loop {
            let event = tokio::select! {
                biased;
                event = news.recv() => event,
                () = to.closed() => return,
            };
            let response = match event {
                Some(Event::Changed { revision, changes, .. }) => {
                    let events = changes.iter().map(|change| words::event(change, revision)).collect();
                    PbWatchResponse { header: words::header(revision), events, ..PbWatchResponse::default() }
                }
                Some(Event::Gap { cause: GapCause::Compacted, .. }) => {
                    return drop(to.send(Ok(cancelled(revision.0))));
                }
                Some(Event::Gap { .. }) | Some(Event::Answered { .. }) | None => {
                    return drop(to.send(Ok(cancelled(0))));
                }
            };
            if to.send(Ok(response)).is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl PbWatchService for Etcd {
    type WatchStream = Told<PbWatchResponse>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let mut asked = request.into_inner();
        let (told, heard) = mpsc::unbounded_channel();
        let etcd = self.clone();
        tokio::spawn(async move {
            let Ok(Some(PbWatchRequest { request_union: Some(PbWatchRequestUnion::CreateRequest(create)) })) =
                asked.message().await
            else {
                return;
            };
            let submission = match words::family(&create.key) {
                Ok(family) => Submission::Watch { family, from: Revision(words::unsigned(create.start_revision)) },
                Err(status) => return drop(told.send(Err(status))),
            };
            // The stream ends with the caller's interest in it.
            tokio::select! {
                biased;
                () = etcd.tell(submission, told.clone()) => {}
                () = async { while let Ok(Some(_)) = asked.message().await {} } => return,
            }
            // What was cancelled stays open until the caller leaves, as etcd's does.
            while let Ok(Some(_)) = asked.message().await {}
        });
        let told = stream::unfold(heard, async |mut heard| {
            let next: Option<Result<PbWatchResponse, Status>> = heard.recv().await;
            next.map(|next| (next, heard))
        });
        Ok(Response::new(Box::pin(told)))
    }
}
