//! The requests that wait or run, for `INFER.PS` and `INFER.CANCEL`.
//!
//! A request is kept by the `PendingReply` of its client, and only found here: it is gone before the client is
//! answered. So a request that is found, on the main thread, belongs to a client that still waits for it. Workers never
//! take the lock of this list.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use redis_infer_sync::MainLock;
use redis_module::Context;

use crate::engine::Ticket;
use crate::redis_api::acl;
use crate::redis_api::caller::{self, Caller};
use crate::redis_api::pending::PendingReply;

/// One request.
#[derive(Debug)]
pub(super) struct Live {
    /// The client, and what it asked for.
    pub caller: Caller,
    /// Whether the client waits; else it was answered, and the work goes on without it.
    pub is_awaited: bool,
    /// The model it waits for.
    pub model: String,
    /// How far it is, and how to end it.
    pub ticket: Ticket,
    /// When the command arrived.
    pub arrived: Instant,
}

/// The list. Numbers are never used twice, also when the module is loaded again: the library stays mapped.
static LIST: MainLock<List<Live>> = MainLock::new(List::new());

/// Lists the request of the command that is being handled, until `pending` is answered.
pub(super) fn register(ctx: &Context, pending: &mut PendingReply, command: &'static str, model: &str, ticket: &Ticket) {
    pending.keep(add(ctx, command, model, ticket, true));
}

/// Lists work in the background that the command which is being handled begins, until the result is dropped.
pub(super) fn list_background(ctx: &Context, command: &'static str, model: &str, ticket: &Ticket) -> Listed {
    Listed { _live: add(ctx, command, model, ticket, false) }
}

/// Work in the background, in the list until this is dropped.
#[derive(Debug)]
pub(super) struct Listed {
    _live: Arc<Live>,
}

fn add(ctx: &Context, command: &'static str, model: &str, ticket: &Ticket, is_awaited: bool) -> Arc<Live> {
    let live = Arc::new(Live {
        caller: Caller::of(ctx, command),
        is_awaited,
        model: model.to_owned(),
        ticket: ticket.clone(),
        arrived: Instant::now(),
    });
    list(|list| list.add(&live));
    live
}

/// The requests, oldest first, that the client of `ctx` may know of: those of its own user, or all if the user may
/// unload models, which ends requests too.
pub(super) fn visible(ctx: &Context) -> Vec<(u64, Arc<Live>)> {
    let (all, user) = (acl::may_run(ctx, "infer.unload"), caller::user(ctx));
    let mut found = list(|list| list.all());
    found.retain(|(_, live)| {
        let own = user.is_some() && live.caller.user == user;
        (all || own) && !live.ticket.is_cancelled()
    });
    found
}

fn list<T>(work: impl FnOnce(&mut List<Live>) -> T) -> T {
    work(&mut LIST.lock())
}

/// Values that live elsewhere, by number.
#[derive(Debug)]
struct List<T> {
    last: u64,
    entries: BTreeMap<u64, Weak<T>>,
    /// Dead entries are swept out when there are this many in all.
    sweep_at: usize,
}

/// Below this many entries sweeping is not worth it.
const SMALL: usize = 64;

impl<T> List<T> {
    const fn new() -> Self {
        Self { last: 0, entries: BTreeMap::new(), sweep_at: SMALL }
    }

    fn add(&mut self, value: &Arc<T>) {
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, entry| entry.strong_count() > 0);
            self.sweep_at = SMALL.max(2 * self.entries.len());
        }
        self.last += 1;
        self.entries.insert(self.last, Arc::downgrade(value));
    }

    fn all(&self) -> Vec<(u64, Arc<T>)> {
        self.entries.iter().filter_map(|(&number, entry)| Some((number, entry.upgrade()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_listed_until_it_is_dropped_and_its_number_is_not_used_again() {
        let mut list = List::new();
        let (first, second) = (Arc::new('a'), Arc::new('b'));
        list.add(&first);
        list.add(&second);
        assert_eq!(list.all(), [(1, Arc::new('a')), (2, Arc::new('b'))]);
        drop(second);
        assert_eq!(list.all(), [(1, Arc::new('a'))]);
        list.add(&Arc::new('c'));
        list.add(&first);
        assert_eq!(list.all().last().map(|(number, _)| *number), Some(4));
    }

    #[test]
    fn dead_entries_do_not_pile_up() {
        let mut list = List::new();
        let alive: Vec<_> = (0..100).map(Arc::new).collect();
        alive.iter().for_each(|value| list.add(value));
        for number in 0..10_000 {
            list.add(&Arc::new(number));
        }
        assert_eq!(list.all().len(), 100);
        assert!(list.entries.len() <= 200, "{}", list.entries.len());
    }
}
