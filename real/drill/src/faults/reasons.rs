//! Why a fault is left out of a drill.

use worldline_sim::{Fault, bus, cache, directory, ledger};

/// Why nobody can provoke this from outside.
pub fn why_not(fault: &Fault) -> String {
    let outside = |what: &str, why: &str| format!("{what} cannot be provoked from outside: {why}");
    match fault {
        Fault::Clock { .. } => outside("a clock of its own", "every process of a machine reads the same clocks"),
        Fault::HoldOutbox { .. } => {
            outside("a stop between outbox and socket", "a signal stops a process wherever it happens to be")
        }
        Fault::CrashAfterSubmissions { .. } => {
            outside("a crash between two such submissions", "a signal kills a process wherever it happens to be")
        }
        Fault::Slow { .. } => outside("a slow process", "its share of the machine is not its pace"),
        Fault::Ledger(fault) => {
            use ledger::Fault as F;
            match fault {
                F::Conflicts { .. } => outside("a conflict", "the server aborts a transaction only for a real one"),
                F::SlowDisk { .. } | F::DisksLie { .. } | F::DiskFull { .. } => {
                    outside("a disk of its own", "the services write where everybody writes")
                }
                F::ReadOnly { .. } => outside("a read-only primary", "its sessions choose that for themselves"),
                F::Switchover | F::LoseAnswers { .. } | F::LoseConnections { .. } | F::DelayCommits { .. } => {
                    unreachable!("these are provoked")
                }
            }
        }
        Fault::Bus(fault) => {
            use bus::Fault as F;
            match fault {
                F::Purge => outside("a purged stream", "the drill reads at the end what it has stored"),
                F::Full { .. } => outside("a full stream", "who uses it refuses one with other limits than it knows"),
                other => unreachable!("{other:?} is provoked"),
            }
        }
        Fault::Cache(fault) => {
            use cache::Fault as F;
            match fault {
                F::Failover { .. } | F::DelayReplication { .. } => {
                    outside("what befalls a cache's followers", "one Valkey stands for the primary and them")
                }
                F::LoseAnswers { .. } => outside(
                    "a lost answer of a cache",
                    "all answers of a caller share one stream, known by their order",
                ),
                other => unreachable!("{other:?} is provoked"),
            }
        }
        Fault::Directory(fault) => {
            use directory::Fault as F;
            match fault {
                F::LoseAnswers { .. } => {
                    outside("a lost answer of the directory", "all answers of a caller share one stream")
                }
                F::DelayNews { .. } => outside("late news of a watch", "they share one stream with the answers"),
                F::CancelWatches => outside("a cancelled watch", "etcd has no command that cancels another's"),
                F::DatabaseFull { .. } => outside("a full database", "its quota is set when etcd starts"),
                F::RestoreBackup { .. } => outside("a restored backup", "nobody has taken one"),
                F::SlowDisk { .. } | F::DisksLie { .. } => {
                    outside("a disk of its own", "the services write where everybody writes")
                }
                other => outside(&format!("{other:?}"), "a drill does not know how"),
            }
        }
        other => outside(&format!("{other:?}"), "a drill does not know how"),
    }
}
