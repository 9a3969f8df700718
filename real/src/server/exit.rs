//! How a process ends, in numbers that a supervisor can act on.

use std::process::ExitCode;

/// An end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// As it should: an orderly stop, a command that did what was asked.
    Done,
    /// The answer is no: nobody owns the entity, a bot has lost something.
    No,
    /// Wrong usage or configuration. Starting it again changes nothing.
    Usage,
    /// An address cannot be had.
    Unavailable,
    /// Something broke inside.
    Internal,
    /// The ledger has another schema than this program's. Starting it again changes nothing.
    Schema,
}

impl Exit {
    /// Its number, after sysexits.h where that has one.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Schema => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
