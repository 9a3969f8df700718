//! Lines of a script: what a proxy does to each link, and at which place of what passes it.
//!
//! Places are counted from the moment on at which a line begins to hold, on each link by itself, and on a link that is made later
//! from its first byte. What passes decides, and not the time: the same line does the same to the same bytes.

use crate::service::{Fault, Mishap};
use proptest::prelude::*;
use std::fmt::Debug;

/// What is done, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// On which way.
    pub way: Way,
    /// Behind how much.
    pub after: After,
    /// What.
    pub trouble: Trouble,
}

/// One way of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// What is asked.
    ToService,
    /// What is answered and told.
    ToCaller,
}

/// How much passes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// Bytes: the last message may be torn.
    Bytes(u32),
    /// Whole messages of the service's protocol, but those that only keep a link alive.
    Messages(u32),
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The link is closed in an orderly way.
    Cut,
    /// It is reset.
    Reset,
    /// Who hears what goes this way is told that nothing more comes; the other way goes on.
    HalfClose,
    /// The next message is lost; where an answer is known by its place, all behind it are lost too.
    Swallow,
    /// Everything from there on takes longer.
    Delay,
}

/// What scripts must come across: each trouble, and both kinds of `Unknown` that may follow.
pub const SCRIPTED: &[&str] = &[
    "cut in place",
    "reset",
    "half-closed in place",
    "swallowed",
    "delayed",
    "Unknown that had happened",
    "Unknown that had not",
];

impl Trouble {
    const ALL: [Self; 5] = [Self::Cut, Self::Reset, Self::HalfClose, Self::Swallow, Self::Delay];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut in place",
            Self::Reset => "reset",
            Self::HalfClose => "half-closed in place",
            Self::Swallow => "swallowed",
            Self::Delay => "delayed",
        }
    }
}

/// Any place where the first that is asked and answered lies.
fn place() -> impl Strategy<Value = (Way, After)> {
    let way = prop::sample::select(vec![Way::ToService, Way::ToCaller]);
    let after = prop_oneof![(0..400_u32).prop_map(After::Bytes), (0..9_u32).prop_map(After::Messages)];
    (way, after)
}

/// Each trouble once, in any place; and what is asked first is lost, and what is answered first. In any order.
fn mishaps() -> impl Strategy<Value = Vec<Mishap>> {
    let anywhere = prop::collection::vec((place(), any::<bool>()), Trouble::ALL.len());
    let lines = anywhere.prop_map(|places| {
        let somewhere = Trouble::ALL.into_iter().zip(places).map(|(trouble, ((way, after), under_way))| {
            let line = Line { way, after, trouble };
            Mishap { fault: Fault::Scripted(line), under_way }
        });
        let first = [Way::ToService, Way::ToCaller].map(|way| {
            let line = Line { way, after: After::Messages(0), trouble: Trouble::Swallow };
            Mishap { fault: Fault::Scripted(line), under_way: false }
        });
        somewhere.chain(first).collect::<Vec<_>>()
    });
    lines.prop_shuffle()
}

/// A script with some steps before each of its lines. `fault` makes a step of a line, with a number that is drawn.
pub(crate) fn script<T: Debug>(
    between: impl Strategy<Value = T>,
    fault: impl Fn(Mishap, u64) -> T,
) -> impl Strategy<Value = Vec<T>> {
    const LINES: usize = Trouble::ALL.len() + 2;
    let between = prop::collection::vec((prop::collection::vec(between, 0..3), 0..64_u64), LINES);
    (mishaps(), between).prop_map(move |(mishaps, between)| {
        let step = |(mishap, (before, number)): (Mishap, (Vec<T>, u64))| {
            before.into_iter().chain([fault(mishap, number)]).collect::<Vec<T>>()
        };
        mishaps.into_iter().zip(between).flat_map(step).collect()
    })
}
