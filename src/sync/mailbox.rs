//! A list that any thread can put values into without ever waiting, and that is taken as a whole.

use std::fmt;
use std::ptr;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

/// Values that were posted and not taken yet.
///
/// A post goes wrong only when another one has gone right in the same moment, and is tried again: a thread that is
/// stopped in the middle of a post or of a [`Mailbox::take`] holds nobody up. Whoever takes has to be woken up by other means, such as
/// [`std::thread::Thread::unpark`].
pub struct Mailbox<T> {
    /// The value that was posted last.
    last: ArcSwapOption<Node<T>>,
}

/// Its locks are for the compiler: before the node is in the list only who posts it takes them, and then only who has taken it out.
struct Node<T> {
    value: Mutex<Option<T>>,
    /// The one that was posted before it.
    before: Mutex<Option<Arc<Self>>>,
}

impl<T> Mailbox<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: ArcSwapOption::const_empty() }
    }

    /// Puts `value` behind those that are there. Never waits.
    pub fn post(&self, value: T) {
        let node = Arc::new(Node { value: Mutex::new(Some(value)), before: Mutex::new(None) });
        let mut last = self.last.load();
        loop {
            put(&node.before, Option::clone(&last));
            let found = self.last.compare_and_swap(&*last, Some(Arc::clone(&node)));
            if address(&found) == address(&last) {
                break;
            }
            last = found;
        }
        // The order of posts and of flags that are set around them is the same for all threads.
        fence(Ordering::SeqCst);
    }

    /// All values that are there, in the order in which they were posted.
    #[must_use]
    pub fn take(&self) -> Vec<T> {
        fence(Ordering::SeqCst);
        let mut next = self.last.swap(None);
        let mut values = Vec::new();
        while let Some(node) = next {
            // Out of the node: one that another thread is just looking at must not hold all the others.
            next = put(&node.before, None);
            values.extend(put(&node.value, None));
        }
        values.reverse();
        values
    }

    /// Whether there is nothing in it at this moment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        self.last.load().is_none()
    }
}

fn put<T>(into: &Mutex<Option<T>>, value: Option<T>) -> Option<T> {
    std::mem::replace(&mut *into.lock().unwrap_or_else(PoisonError::into_inner), value)
}

fn address<T>(node: &Option<Arc<T>>) -> *const T {
    node.as_ref().map_or(ptr::null(), Arc::as_ptr)
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("is_empty", &self.is_empty()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    #[test]
    fn values_come_out_in_the_order_of_their_posts() {
        let mailbox = Mailbox::new();
        assert!(mailbox.is_empty());
        (0..5).for_each(|number| mailbox.post(number));
        assert!(!mailbox.is_empty());
        assert_eq!(mailbox.take(), [0, 1, 2, 3, 4]);
        assert_eq!(mailbox.take(), [0; 0]);
    }

    #[test]
    fn every_value_is_taken_once_and_those_of_one_thread_in_their_order() {
        const THREADS: usize = 4;
        const POSTS: usize = 20_000;
        let mailbox = Mailbox::new();
        let mut taken: Vec<Vec<usize>> = Vec::new();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let mailbox = &mailbox;
                scope.spawn(move || (0..POSTS).for_each(|number| mailbox.post((thread, number))));
            }
            let take = || {
                let mut of_each = vec![Vec::new(); THREADS];
                let mut count = 0;
                while count < THREADS * POSTS / 2 {
                    for (thread, number) in mailbox.take() {
                        of_each[thread].push(number);
                        count += 1;
                    }
                    thread::yield_now();
                }
                of_each
            };
            let takers = [scope.spawn(take)];
            taken.extend(takers.into_iter().flat_map(|taker| taker.join().unwrap()));
        });
        for (thread, number) in mailbox.take() {
            taken[thread].push(number);
        }
        for of_one in taken {
            assert_eq!(of_one, (0..POSTS).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_nobody_takes_is_dropped_with_the_mailbox() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let mailbox = Mailbox::new();
        (0..3).for_each(|_| mailbox.post(Counted(Arc::clone(&dropped))));
        drop(mailbox.take().pop());
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        (0..2).for_each(|_| mailbox.post(Counted(Arc::clone(&dropped))));
        drop(mailbox);
        assert_eq!(dropped.load(Ordering::Relaxed), 5);
    }
}
