//! How deeply definitions nest that mention each other: rules of a grammar, definitions of a schema.

/// A definition is mentioned inside another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    /// Number of the definition that is mentioned.
    pub definition: usize,
    /// Levels between the beginning of the definition that mentions it and that place; at least 1.
    pub depth: usize,
    /// How often it may stand there, repetitions around it multiplied; at least 1.
    pub times: usize,
}

/// What definition `root` has when each definition it leads to is put in its place as often as it is mentioned there; `own` is what
/// each has by itself. A definition inside itself adds nothing. Takes no stack, and looks at each definition once.
#[must_use]
pub fn multiplied_out(own: &[usize], mentions: &[Vec<Mention>], root: usize) -> usize {
    let of = |definition: usize| mentions.get(definition).map_or(&[][..], Vec::as_slice);
    let own = |definition: usize| own.get(definition).copied().unwrap_or_default();
    // Nothing for those that are on the way here.
    let mut sums: Vec<Option<usize>> = vec![None; mentions.len()];
    let mut way = vec![(root, 0, own(root))];
    let mut begun = vec![false; mentions.len()];
    while let Some((definition, next, sum)) = way.last_mut() {
        let Some(mention) = of(*definition).get(*next) else {
            let (definition, sum) = (*definition, *sum);
            if let Some(place) = sums.get_mut(definition) {
                *place = Some(sum);
            }
            way.pop();
            if way.is_empty() {
                return sum;
            }
            continue;
        };
        match (sums.get(mention.definition), begun.get_mut(mention.definition)) {
            (Some(Some(below)), _) => *sum = sum.saturating_add(below.saturating_mul(mention.times)),
            (Some(None), Some(begun @ false)) if mention.definition != root => {
                *begun = true;
                way.push((mention.definition, 0, own(mention.definition)));
                continue;
            }
            _ => {}
        }
        *next += 1;
    }
    0
}

/// A definition below which others are nested more than `limit` levels deep, counted from definition `root` on; `None` if
/// there is none.
///
/// What stands below a definition is looked at once, and a definition inside itself adds nothing: so it is at least as deep
/// as any walk that goes into each definition once. Takes no stack.
#[must_use]
pub fn deeper_than(limit: usize, mentions: &[Vec<Mention>], root: usize) -> Option<usize> {
    #[derive(Clone, Copy)]
    enum Seen {
        Not,
        Begun,
        Levels(usize),
    }
    let of = |definition: usize| mentions.get(definition).map_or(&[][..], Vec::as_slice);
    let mut seen = vec![Seen::Not; mentions.len()];
    if let Some(seen) = seen.get_mut(root) {
        *seen = Seen::Begun;
    }
    // Definitions on the way here, each with how many of its mentions were looked at, and the levels found below it.
    let mut way = vec![(root, 0, 0)];
    while let Some((definition, next, levels)) = way.last_mut() {
        let Some(mention) = of(*definition).get(*next) else {
            if let Some(seen) = seen.get_mut(*definition) {
                *seen = Seen::Levels(*levels);
            }
            way.pop();
            continue;
        };
        match seen.get_mut(mention.definition) {
            Some(seen @ Seen::Not) => {
                *seen = Seen::Begun;
                way.push((mention.definition, 0, 0));
                continue;
            }
            Some(Seen::Levels(below)) => *levels = mention.depth.saturating_add(*below).max(*levels),
            Some(Seen::Begun) | None => *levels = mention.depth.max(*levels),
        }
        *next += 1;
        if *levels > limit {
            return Some(*definition);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mention(definition: usize, depth: usize) -> Mention {
        Mention { definition, depth, times: 1 }
    }

    #[test]
    fn the_longest_way_counts_whatever_the_order_of_mentions() {
        // 0 mentions 3, 2 and 1; 1 mentions 2, 2 mentions 3.
        let chain = |order: [usize; 3]| {
            vec![order.map(|to| mention(to, 1)).to_vec(), vec![mention(2, 4)], vec![mention(3, 1)], vec![]]
        };
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            assert_eq!(deeper_than(6, &chain(order), 0), None);
            assert_eq!(deeper_than(5, &chain(order), 0), Some(0), "{order:?}");
        }
    }

    #[test]
    fn circles_add_nothing_and_what_is_not_reached_does_not_count() {
        let circle = vec![vec![mention(1, 1)], vec![mention(0, 1), mention(1, 1)], vec![mention(0, 100)]];
        assert_eq!(deeper_than(2, &circle, 0), None);
        assert_eq!(deeper_than(1, &circle, 0), Some(0));
    }

    #[test]
    fn a_long_chain_takes_no_stack() {
        let chain: Vec<Vec<Mention>> = (1..1_000_000).map(|next| vec![mention(next, 1)]).collect();
        assert_eq!(deeper_than(1_000_000, &chain, 0), None);
        assert!(deeper_than(512, &chain, 0).is_some());
    }

    #[test]
    fn what_is_mentioned_in_what_is_repeated_is_multiplied() {
        let times = |definition, times| Mention { definition, depth: 1, times };
        // 0 has 1 ten times, which has 2 ten times, and 2 twice more.
        let mentions = vec![vec![times(1, 10), times(2, 2)], vec![times(2, 10)], vec![]];
        assert_eq!(multiplied_out(&[1, 1, 3], &mentions, 0), 1 + 10 * (1 + 10 * 3) + 2 * 3);
        assert_eq!(multiplied_out(&[1, 1, 3], &mentions, 2), 3);
        // A circle adds nothing.
        let circle = vec![vec![times(1, 5)], vec![times(0, 5), times(1, 5)]];
        assert_eq!(multiplied_out(&[1, 1], &circle, 0), 1 + 5);
        let long: Vec<Vec<Mention>> = (0..1000).map(|rule| vec![times(rule + 1, 2000)]).chain([vec![]]).collect();
        assert_eq!(multiplied_out(&vec![1; 1001], &long, 0), usize::MAX);
    }
}
