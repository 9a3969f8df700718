//! Catches an assertion that fails inside a run, with its message and place, so that it is reported as a failure of that seed
//! and the other seeds go on.

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// What `work` returns, or what its panic said.
///
/// # Errors
/// The panic's message and place.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                MESSAGE.set(info.to_string().replace('\n', " "));
            } else {
                before(info);
            }
        }));
    });
    let outer = WATCHED.replace(true);
    // Whoever asked looks only at what says where the run had come to.
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    WATCHED.set(outer);
    done.map_err(|_| MESSAGE.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_assertion_is_a_message() {
        assert_eq!(caught(|| 7), Ok(7));
        let message = caught(|| assert_eq!(1 + 1, 3, "sums")).expect_err("it panics");
        assert!(message.contains("sums") && message.contains("panics.rs"), "{message}");
    }
}
