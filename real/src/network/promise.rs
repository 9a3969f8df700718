//! The answer to one operation: given exactly once, whatever becomes of the task that owes it.

use crate::Inbox;
use worldline_proto::OpId;
use worldline_system::doors::{self, network::Event};

/// Dropped, it answers what stands in it.
pub(crate) struct Promise {
    inbox: Inbox,
    op: OpId,
    answer: Option<Event>,
}

impl Promise {
    pub fn new(inbox: Inbox, op: OpId, unless_kept: Event) -> Self {
        Self { inbox, op, answer: Some(unless_kept) }
    }

    /// What it answers from now on unless it is kept.
    pub fn change(&mut self, unless_kept: Event) {
        self.answer = Some(unless_kept);
    }

    pub fn keep(mut self, answer: Event) {
        self.answer = Some(answer);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.inbox.answer(self.op, doors::Event::Network(answer));
        }
    }
}
