//! Which fixes of Redis itself a server lacks that concern modules which block clients, as this one does.

/// Why to run a newer server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    /// CVE-2026-23479, and what [`Lacks::Second`] is about.
    Both,
    /// A use after free in the list of blocked clients, and in searches of vector sets while an element is removed.
    Second,
}

impl Lacks {
    /// What is wrong and what to do, for the log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Both => {
                "lacks fixes of Redis itself for modules that block clients, as this one does: CVE-2026-23479, a use after free when \
                 a client is unblocked (fixed in 7.4.9, 8.2.6, 8.4.3, 8.6.3 and 8.8.0), and one in the list of blocked clients and \
                 in searches of vector sets (fixed in 8.8.2 and 8.10.1); run 8.8.2, 8.10.1 or newer"
            }
            Self::Second => {
                "lacks a fix of Redis itself for modules that block clients, as this one does: a use after free in the list of \
                 blocked clients and in searches of vector sets (fixed in 8.8.2 and 8.10.1); run 8.8.2, 8.10.1 or newer"
            }
        }
    }
}

/// What Redis of this version lacks, by the release notes. A line that no note speaks of, such as 7.2, has had no release with the
/// fix.
#[must_use]
pub fn lacks(version: (u32, u32, u32)) -> Option<Lacks> {
    let has_first = match version {
        (7, 4, patch) => patch >= 9,
        (8, 2, patch) => patch >= 6,
        (8, 4, patch) => patch >= 3,
        (8, 6, patch) => patch >= 3,
        version => version >= (8, 8, 0),
    };
    let has_second = match version {
        (8, 8, patch) => patch >= 2,
        version => version >= (8, 10, 1),
    };
    match (has_first, has_second) {
        (_, true) => None,
        (true, false) => Some(Lacks::Second),
        (false, false) => Some(Lacks::Both),
    }
}

/// The numbers of a version such as `8.2.3`; what is behind them, as in `8.12.0-rc1`, does not count.
#[must_use]
pub fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split('.');
    let mut next = || {
        let part = parts.next()?;
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..digits)?.parse().ok()
    };
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_lacks_what_no_release_of_its_line_has_fixed_or_only_a_later_one() {
        let (both, second) = (Some(Lacks::Both), Some(Lacks::Second));
        for (version, expected) in [
            ("7.2.4", both),
            ("7.2.99", both),
            ("7.4.1", both),
            ("7.4.8", both),
            ("7.4.9", second),
            ("7.4.10", second),
            ("8.0.9", both),
            ("8.2.3", both),
            ("8.2.5", both),
            ("8.2.6", second),
            ("8.4.2", both),
            ("8.4.3", second),
            ("8.6.2", both),
            ("8.6.3", second),
            ("8.7.0", both),
            ("8.8.0", second),
            ("8.8.1", second),
            ("8.8.2", None),
            ("8.8.10", None),
            ("8.10.0", second),
            ("8.10.1", None),
            ("8.12.0-rc1", None),
            ("9.0.0", None),
            ("255.255.255", None),
        ] {
            assert_eq!(numbers(version).and_then(lacks), expected, "{version}");
        }
    }

    #[test]
    fn what_is_no_version_has_no_numbers() {
        for text in ["", "8", "8.2", "8.x.1", "unknown"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }

    #[test]
    fn each_text_says_what_to_run() {
        assert!([Lacks::Both, Lacks::Second].iter().all(|lacks| lacks.text().ends_with("run 8.8.2, 8.10.1 or newer")));
        assert!(Lacks::Both.text().contains("CVE-2026-23479") && !Lacks::Second.text().contains("CVE"));
    }
}
