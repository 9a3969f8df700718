//! The invariants that are checked, by the names and in the words of the design.

use std::fmt;

/// Declares the invariants with their sentences.
macro_rules! invariants {
    ($($id:ident $sentence:literal,)*) => {
        /// Something that must hold in every run, whatever fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $(#[doc = $sentence] $id,)*
        }

        impl Invariant {
            /// All of them, in the order of the design.
            pub const ALL: &[Self] = &[$(Self::$id),*];

            /// Its short name: a letter for its family and a number.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)* }
            }

            /// What must hold.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$id => $sentence,)* }
            }
        }
    };
}

invariants! {
    O1 "for an entity and epoch at most one lease's writes are accepted; nothing of an older epoch commits after a claim",
    O2 "an entity's epochs never fall or repeat, also after a restore",
    O3 "a worker submits nothing authoritative past its lease by its own clock",
    O4 "every sink of state refuses an older epoch or version",
    O5 "an entity has one owner: none is taken from the living, and no orphan outlives the budget while it could be taken over",
    O8 "a dead identity never acts again, and no lease id is granted twice",
    O9 "the directory grants, renews and commits nothing without a quorum",
    O11 "whatever an orchestrator commits, it commits under its own leader key, as the leader of that revision",
    G2 "a replica's state, and what a client is shown of it, is never ahead of its owner's and never goes back",
    S1 "a character has one active session: its highest generation",
    S2 "durable operations take effect exactly once and without gaps, movements at most once",
    S3 "what was answered or acknowledged had been committed before, and stays committed",
    S4 "a revoked token stays revoked: it begins no session, and what it had begun ends within a bound",
    S5 "losing the whole cache costs latency only: who takes over goes on from what the ledger or the replaced epoch has written",
    S6 "a drain loses nothing: what is under way is acknowledged once and within 10 s, and no session is cut off",
    S7 "only who moves as no honest client does is sent away for it, and only when its violations were counted up to the bound",
    S8 "a session ends with its token: 10 s later its player moves no more and no gateway keeps it; and nobody is turned away before",
    R3 "after healing every client agrees with authority: within 6 s on what the world shares, within 3 s on its own character",
    E1 "balances sum to what was minted less what was burned, at every commit",
    E4 "one key has one payload and one result, everywhere",
    E5 "an acknowledged operation survives any tolerated failure: the ledger has at least what clients were told",
    E6 "an effect and its fact are committed together, every fact is published, and every reader applies each once, in order",
    E7 "no balance is negative, nothing overflows, and rows change by exactly what the result says",
    E8 "every row is written under an authority that equals its fence",
    M1 "accepted displacement is at most v_max times the time passed, and a bounded credit",
    M2 "every accepted position lies inside the world",
    L1 "every queue keeps within its bound",
    L4 "after healing nothing is stuck and nothing has leaked",
    L7 "whoever tries again waits longer each time, never in step with others, and so often at most",
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// No invariant has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownInvariant(pub String);

impl fmt::Display for UnknownInvariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no checked invariant", self.0)
    }
}

impl std::error::Error for UnknownInvariant {}

impl std::str::FromStr for Invariant {
    type Err = UnknownInvariant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|invariant| invariant.id() == text);
        found.copied().ok_or_else(|| UnknownInvariant(text.into()))
    }
}
