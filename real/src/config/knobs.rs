//! The periods and retry bounds of a role, for whoever must turn them.

use super::{
    decode,
    layers::Layers,
    problem::{Problem, Sink},
};
use worldline_system::{
    knobs::{Knobs, Retry},
    time::Duration,
};

/// What a server's role is told; what is none of its settings stays as it is everywhere else.
pub(super) fn knobs(layers: &Layers, sink: &mut Sink) -> Option<Knobs> {
    let default = Knobs::default();
    let mut period = |name, default| {
        let range = Duration::from_millis(50)..=Duration::from_secs(60);
        let said = layers.offers(name).then(|| layers.optional(name, sink, decode::duration_in(range)));
        said.flatten().unwrap_or(default)
    };
    let scan_every = period("knobs.scan_every", default.scan_every);
    let checkpoint_every = period("knobs.checkpoint_every", default.checkpoint_every);
    let renewal_patience = period("knobs.renewal_patience", default.renewal_patience);
    Some(Knobs { scan_every, checkpoint_every, renewal_patience, retry: retry(layers, sink)? })
}

/// The waits between tries.
pub(super) fn retry(layers: &Layers, sink: &mut Sink) -> Option<Retry> {
    let default = Retry::default();
    let mut wait = |name, default| {
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        layers.optional(name, sink, decode::duration_in(range)).unwrap_or(default)
    };
    let first = wait("knobs.retry_first", default.first);
    let longest = wait("knobs.retry_longest", default.longest);
    if first > longest {
        let origin = ["knobs.retry_first", "knobs.retry_longest"].iter().find_map(|name| layers.get(name));
        let found = format!("waits from `{first}` to `{longest}`");
        return sink.report(Problem::new(
            &origin?.origin,
            found,
            "`knobs.retry_first` to be at most `knobs.retry_longest`",
        ));
    }
    Some(Retry { first, longest })
}
