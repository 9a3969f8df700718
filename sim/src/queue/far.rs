//! What is due far ahead: a four-ary heap of keys.

use super::Key;

#[derive(Clone, Debug, Default)]
pub(super) struct Far(Vec<Key>);

impl Far {
    #[inline]
    pub(super) fn first(&self) -> Option<Key> {
        self.0.first().copied()
    }

    pub(super) fn push(&mut self, key: Key) {
        let mut at = self.0.len();
        self.0.push(key);
        while at > 0 {
            let parent = (at - 1) / 4;
            if self.0[parent] < key {
                break;
            }
            self.0[at] = self.0[parent];
            at = parent;
        }
        self.0[at] = key;
    }

    pub(super) fn pop(&mut self) {
        let Some(key) = self.0.pop() else { return };
        if self.0.is_empty() {
            return;
        }
        let mut at = 0;
        loop {
            let first = 4 * at + 1;
            let children = self.0.iter().enumerate().skip(first).take(4);
            let Some((child, &least)) = children.min_by_key(|&(_, key)| key) else { break };
            if key < least {
                break;
            }
            self.0[at] = least;
            at = child;
        }
        self.0[at] = key;
    }
}
