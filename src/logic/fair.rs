//! Which of the tasks that wait comes next, so that no client takes the turns of others, and small work does not wait behind large.
//!
//! Self-clocked fair queueing: a task is tagged with the time at which it would end if each client had a server of its own, and the
//! lowest tag goes first. The clock is the tag of the latest task that was begun. So whoever comes anew goes before the later tasks of
//! one who has sent many; of two newcomers the one with less to do goes first; and what waits is passed by the clock in the
//! end, so nothing waits for ever.
//!
//! Large tasks are apart, because there may be fewer of them at work than there are threads.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What each task costs besides its bytes, so that empty ones have an order too.
const BASE: u64 = 4 << 10;

/// Tasks that wait.
#[derive(Debug)]
pub struct Fair<T> {
    small: BTreeMap<Tag, Waiting<T>>,
    large: BTreeMap<Tag, Waiting<T>>,
    /// When the latest task of a client ends, by client; those that the clock has passed mean nothing any more.
    ends: HashMap<u64, u64>,
    clock: u64,
    number: u64,
}

/// When a task would end, and its number.
type Tag = (u64, u64);

#[derive(Debug)]
struct Waiting<T> {
    client: u64,
    task: T,
}

/// How large a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// It never waits for a large one.
    Small,
    /// Few of them may be at work at once.
    Large,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { small: BTreeMap::new(), large: BTreeMap::new(), ends: HashMap::new(), clock: 0, number: 0 }
    }
}

impl<T> Fair<T> {
    /// Adds a task of `client` over so many bytes.
    pub fn push(&mut self, client: u64, bytes: usize, size: Size, task: T) {
        let cost = BASE.saturating_add(bytes as u64);
        let begin = self.ends.get(&client).copied().unwrap_or(0).max(self.clock);
        let end = begin.saturating_add(cost);
        self.ends.insert(client, end);
        if self.ends.len() > 2 * (self.len() + 32) {
            let clock = self.clock;
            self.ends.retain(|_, end| *end > clock);
        }
        self.number += 1;
        let lane = if size == Size::Small { &mut self.small } else { &mut self.large };
        lane.insert((end, self.number), Waiting { client, task });
    }

    /// The task that comes next, and how large it is; a large one only where it may be.
    pub fn pop(&mut self, may_be_large: bool) -> Option<(Size, T)> {
        let small = self.small.first_key_value().map(|(&tag, _)| tag);
        let large = self.large.first_key_value().map(|(&tag, _)| tag).filter(|_| may_be_large);
        let is_small = match (small, large) {
            (Some(small), Some(large)) => small < large,
            (small, _) => small.is_some(),
        };
        let (size, lane) = if is_small { (Size::Small, &mut self.small) } else { (Size::Large, &mut self.large) };
        if size == Size::Large && !may_be_large {
            return None;
        }
        let ((end, _), Waiting { task, .. }) = lane.pop_first()?;
        self.clock = self.clock.max(end);
        Some((size, task))
    }

    /// Takes out the tasks that nobody wants any more; they count for nothing.
    pub fn take_unwanted(&mut self, is_unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        for lane in [&mut self.small, &mut self.large] {
            let tags = lane.iter().filter(|(_, waiting)| is_unwanted(&waiting.task)).map(|(&tag, _)| tag);
            let tags: Vec<Tag> = tags.collect();
            gone.extend(tags.iter().filter_map(|tag| lane.remove(tag)));
        }
        if !gone.is_empty() {
            let left: HashSet<u64> = self.small.values().chain(self.large.values()).map(|of| of.client).collect();
            for of in gone.iter().filter(|of| !left.contains(&of.client)) {
                self.ends.remove(&of.client);
            }
        }
        gone.into_iter().map(|of| of.task).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size_of(bytes: usize) -> Size {
        if bytes > 1000 { Size::Large } else { Size::Small }
    }

    /// The order in which tasks of (client, bytes) come that were there before the first was taken.
    fn order(tasks: &[(u64, usize)]) -> Vec<usize> {
        let mut fair = Fair::default();
        for (number, &(client, bytes)) in tasks.iter().enumerate() {
            fair.push(client, bytes, size_of(bytes), number);
        }
        std::iter::from_fn(|| fair.pop(true).map(|(_, number)| number)).collect()
    }

    #[test]
    fn tasks_of_one_client_keep_their_order() {
        assert_eq!(order(&[(1, 5), (1, 3), (1, 900), (1, 0)]), [0, 1, 2, 3]);
    }

    #[test]
    fn clients_take_turns_however_many_tasks_one_of_them_has() {
        let tasks: Vec<(u64, usize)> = [(1, 100); 5].into_iter().chain([(2, 100); 2]).collect();
        assert_eq!(order(&tasks), [0, 5, 1, 6, 2, 3, 4]);
    }

    #[test]
    fn less_work_goes_first_among_clients_that_come_at_once() {
        assert_eq!(order(&[(1, 2_000_000), (2, 100), (3, 50_000), (4, 0)]), [3, 1, 2, 0]);
    }

    #[test]
    fn large_work_is_not_passed_over_for_ever() {
        let mut fair = Fair::default();
        fair.push(0, 100_000, Size::Large, "large");
        let mut passed = 0;
        for client in 1.. {
            fair.push(client, 1000, Size::Small, "small");
            if fair.pop(true).map(|(_, task)| task) == Some("large") {
                break;
            }
            passed += 1;
        }
        // About as much work as it is itself.
        assert!((10..50).contains(&passed), "{passed}");
    }

    #[test]
    fn a_large_task_waits_where_it_may_not_run_and_small_ones_go_on() {
        let mut fair = Fair::default();
        fair.push(1, 5000, Size::Large, 'l');
        assert_eq!(fair.pop(false), None);
        fair.push(1, 10, Size::Small, 's');
        assert_eq!(fair.pop(false), Some((Size::Small, 's')));
        assert_eq!(fair.pop(true), Some((Size::Large, 'l')));
        assert_eq!(fair.pop(true), None);
    }

    #[test]
    fn unwanted_tasks_are_taken_out_and_the_others_stay() {
        let mut fair = Fair::default();
        (0..10).for_each(|number| fair.push(number, 2000 * number as usize % 4000, Size::Small, number));
        let mut gone = fair.take_unwanted(|number| number % 2 == 0);
        gone.sort_unstable();
        assert_eq!(gone, [0, 2, 4, 6, 8]);
        assert_eq!((fair.len(), fair.ends.len()), (5, 5));
    }

    proptest! {
        #[test]
        fn every_task_comes_once_and_what_is_known_of_clients_is_bounded(
            tasks in prop::collection::vec((any::<u64>(), 0_usize..10_000, any::<bool>()), 0..300)
        ) {
            let mut fair = Fair::default();
            let mut taken = Vec::new();
            for (number, &(client, bytes, takes)) in tasks.iter().enumerate() {
                fair.push(client, bytes, size_of(bytes), number);
                if takes {
                    taken.extend(fair.pop(true).map(|(_, number)| number));
                }
                prop_assert!(fair.ends.len() <= 2 * (fair.len() + 33));
            }
            taken.extend(std::iter::from_fn(|| fair.pop(true).map(|(_, number)| number)));
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..tasks.len()).collect::<Vec<_>>());
        }
    }
}
