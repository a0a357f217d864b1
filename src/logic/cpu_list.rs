//! Lists of CPUs as Linux writes them: `0-3,6`.

use std::fmt;

use thiserror::Error;

/// CPUs that can be named: `CPU_SETSIZE` of Linux.
pub const CPUS: usize = 1024;
const WORD: usize = u64::BITS as usize;

/// A set of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuList([u64; CPUS / WORD]);

/// Why a text is no list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a list of CPUs is numbers and ranges from 0 to 1023 with commas between them, as in 0-3,6")]
pub struct NotACpuList;

impl CpuList {
    /// Reads a list; it names at least one CPU.
    ///
    /// # Errors
    /// When it does not.
    pub fn parse(text: &str) -> Result<Self, NotACpuList> {
        let number = |text: &str| -> Result<usize, NotACpuList> {
            let digits = text.trim();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|&cpu| is_number && cpu < CPUS).ok_or(NotACpuList)
        };
        let mut list = Self([0; CPUS / WORD]);
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(NotACpuList);
            }
            (first..=last).for_each(|cpu| list.insert(cpu));
        }
        Ok(list)
    }

    /// The list of these CPUs; those that cannot be named are left out.
    pub fn of(cpus: impl Iterator<Item = usize>) -> Self {
        let mut list = Self([0; CPUS / WORD]);
        cpus.for_each(|cpu| list.insert(cpu));
        list
    }

    fn insert(&mut self, cpu: usize) {
        if let Some(word) = self.0.get_mut(cpu / WORD) {
            *word |= 1 << (cpu % WORD);
        }
    }

    /// Whether a CPU is in the list.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.get(cpu / WORD).is_some_and(|word| word >> (cpu % WORD) & 1 == 1)
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let list = *self;
        (0..CPUS).filter(move |&cpu| list.contains(cpu))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|&next| next == last + 1) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_in_any_order_are_a_list() {
        for (text, shown) in [
            ("0", "0"),
            ("0-3,6", "0-3,6"),
            ("6, 1-2 ,0", "0-2,6"),
            ("1023", "1023"),
            ("5,5,4-5", "4-5"),
            ("0-1023", "0-1023"),
        ] {
            assert_eq!(CpuList::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ",", "1,", "a", "-1", "3-1", "1-", "1-2-3", "1024", "+1", "0x1", "99999999999999999999"] {
            assert_eq!(CpuList::parse(text), Err(NotACpuList), "{text}");
        }
    }

    #[test]
    fn a_list_knows_its_cpus() {
        let list = CpuList::parse("1,64-65").unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [1, 64, 65]);
        assert!(list.contains(64) && !list.contains(0) && !list.contains(5000));
        assert_eq!(CpuList::of(list.iter()), list);
    }
}
