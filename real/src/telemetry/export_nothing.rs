//! Where there is no network, nothing is exported.

use worldline_system::doors::telemetry::Span;

/// None can be made.
#[derive(Clone, Debug)]
pub enum Exporter {}

impl Exporter {
    pub(super) fn tell(&self, _: Span) {
        match *self {}
    }

    pub(super) async fn end(&self) {
        match *self {}
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        match *self {}
    }
}
