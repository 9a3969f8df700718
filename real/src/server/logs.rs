//! Structured logs on stderr: a line an event, for people on a terminal, in the architecture's schema elsewhere.
//!
//! Invariants:
//! * No secret reaches a log. Secrets have types that do not print themselves.
//! * Nor does it say who plays, or from where: `redact`.
//! * Nobody who logs waits: a thread of its own writes. What a slow reader leaves waiting has a bound; what comes beyond it is
//!   lost, counted, told in the log once somebody reads on, and shown by `/health`.
//! * A reader of the log that has gone ends nothing: what cannot be written is dropped.

mod redact;
mod schema;

pub use redact::Redaction;
pub use schema::Schema;

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};
use tracing_subscriber::EnvFilter;

/// What may wait for whoever reads the log, in bytes.
const WAITING_BYTES: usize = 4 << 20;
/// How long a process that ends waits for its last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A library that calls an error what its adapter expects and tells in its own words. Heard only where the filter names it.
const QUIET: &str = "async_nats";

/// The log of this process, once it was started.
static LOG: OnceLock<Log> = OnceLock::new();

/// Begins to log what `filter` lets through. The filter was checked with the configuration. Held until the process ends: dropped,
/// it waits a moment for the last lines.
#[must_use]
pub fn start(filter: &str, schema: Schema) -> Ending {
    let filter = if filter.contains(QUIET) { filter.to_owned() } else { format!("{filter},{QUIET}=off") };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = LOG.get_or_init(|| Log::begin(io::stderr())).clone();
    let writer = log.clone();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || writer.clone())
        .log_internal_errors(false);
    let terminal = io::stderr().is_terminal();
    // A second start within one process (tests) keeps the first.
    drop(logs.with_ansi(terminal).event_format(Schema { terminal, ..schema }).try_init());
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(thread = thread.name(), place, "panicked: {message}");
    }));
    Ending(log)
}

/// How many lines were lost because nobody read them in time.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.lines().lost)
}

/// The end of the log.
pub struct Ending(Log);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.wait_until_written(LAST_LINES);
    }
}

/// Where lines wait for the thread that writes them. Clones share them.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    /// What waits and what is being written.
    bytes: usize,
    lost: u64,
}

impl Log {
    /// A log whose thread lives as long as the process.
    fn begin(mut to: impl Write + Send + 'static) -> Self {
        let log = Self::default();
        let lines = log.clone();
        let writing = thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut told = 0;
            loop {
                let line = lines.next();
                // The reader has gone: there is nobody to tell.
                drop(to.write_all(&line));
                let lost = lines.written(line.len());
                if lost > told {
                    // Itself a line, behind what waits.
                    tracing::warn!(lost = lost - told, "lines of this log were lost: whoever reads it was too slow");
                    told = lost;
                }
            }
        });
        // A system without a thread to give has other troubles, and tells of them without a log.
        drop(writing);
        log
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics while it holds the lock.
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut lines = self.lines();
        if lines.bytes + line.len() > WAITING_BYTES {
            lines.lost += 1;
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line.to_vec());
        drop(lines);
        self.0.changed.notify_all();
    }

    /// Waits for a line.
    fn next(&self) -> Vec<u8> {
        let mut lines = self.lines();
        loop {
            if let Some(line) = lines.waiting.pop_front() {
                return line;
            }
            lines = self.0.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A line is written: how many were lost so far.
    fn written(&self, bytes: usize) -> u64 {
        let mut lines = self.lines();
        lines.bytes -= bytes;
        self.0.changed.notify_all();
        lines.lost
    }

    /// Waits until nothing waits, or for so long: whether everything is written.
    fn wait_until_written(&self, patience: Duration) -> bool {
        let lines = self.lines();
        let waited = self.0.changed.wait_timeout_while(lines, patience, |lines| lines.bytes > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.bytes == 0
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A reader who reads when told to, and shows what.
    struct Pipe(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_makes_nobody_wait_and_costs_no_more_than_the_bound() {
        let (read, told) = channel();
        let (show, shown) = channel();
        let log = Log::begin(Pipe(told, show));
        let line = [b'x'; 1024];
        let fit = WAITING_BYTES / line.len();
        for _ in 0..fit + 7 {
            log.put(&line);
        }
        let lines = log.lines();
        assert_eq!((lines.lost, lines.bytes), (7, WAITING_BYTES));
        drop(lines);
        assert!(!log.wait_until_written(Duration::ZERO), "the end of a process does not wait for ever");
        for _ in 0..fit {
            read.send(()).expect("it waits for a reader");
        }
        assert!(log.wait_until_written(Duration::from_secs(60)), "what fits is written");
        assert_eq!(shown.try_iter().count(), fit);
        drop(read);
        log.put(&line);
        assert!(log.wait_until_written(Duration::from_secs(60)), "a reader that has gone keeps nothing waiting");
    }
}
