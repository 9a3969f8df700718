//! A value that whoever likes waits for. tokio's own wakes those who wait in an order that it draws itself, in each run another; here
//! they are woken in the order in which they began to wait.

use madsim_tokio::sync::Notify;
use std::{
    fmt, mem,
    ops::Deref,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A look at the value.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Nobody can change the value any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    changed: Notify,
    senders: AtomicUsize,
}

impl<T> Shared<T> {
    fn read(&self) -> Ref<'_, T> {
        Ref(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.value.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

/// Waits for the value.
pub struct Receiver<T>(Arc<Shared<T>>);

/// A value, and its two ends.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { value: RwLock::new(value), changed: Notify::new(), senders: AtomicUsize::new(1) });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// A look at the value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.read()
    }

    /// Puts another value there, and wakes who waits.
    pub fn send_replace(&self, value: T) -> T {
        let before = mem::replace(&mut *self.0.write(), value);
        self.0.changed.notify_waiters();
        before
    }

    /// Changes the value, and wakes who waits if it says so.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = modify(&mut self.0.write());
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }

    /// Another receiver.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver(self.0.clone())
    }
}

impl<T> Receiver<T> {
    /// A look at the value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.read()
    }

    /// Waits until the value is as it is wanted.
    ///
    /// # Errors
    /// It is not, and nobody can change it any more.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if wanted(&self.0.read()) {
                break;
            }
            if self.0.senders.load(Ordering::Relaxed) == 0 {
                return Err(RecvError);
            }
            changed.await;
        }
        Ok(self.0.read())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        channel(T::default()).0
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}
