//! How much memory this process can still have: of the machine, and of the control groups (containers) that it is in. Who
//! takes more than a group may have is killed by the kernel, whatever the machine has left.

use std::fs;
use std::path::Path;

/// Bytes that the machine and all control groups can still give without swapping; `None` where that is not known.
pub(super) fn free_memory() -> Option<u64> {
    let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(machine.min(left_in_groups(&groups, Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Version 1 has no word for a group without a limit, but the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// What the files of one version of control groups are called.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Lines of `memory.stat` that count what files have in memory, which can be had.
    files: [&'static str; 2],
}

const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
const VERSION_2: Names =
    Names { limit: "memory.max", usage: "memory.current", files: ["inactive_file", "active_file"] };

/// The least that is left in the groups listed in `groups` (`/proc/self/cgroup`) and in those around them; `None` without
/// a limit.
fn left_in_groups(groups: &str, mount: &Path) -> Option<u64> {
    let left = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (names, mount) = match controllers {
            "" => (VERSION_2, mount.to_owned()),
            _ if controllers.split(',').any(|name| name == "memory") => (VERSION_1, mount.join("memory")),
            _ => return None,
        };
        // In a container the path may be that outside of it: what does not exist has no limit.
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors().filter_map(|group| left_in(&mount.join(group), &names)).min()
    });
    left.min()
}

fn left_in(group: &Path, names: &Names) -> Option<u64> {
    let number = |name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = number(names.limit).filter(|&limit| limit < NO_LIMIT)?;
    let usage = number(names.usage)?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of_files =
        statistics.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| names.files.contains(name));
    let files = of_files.filter_map(|(_, bytes)| bytes.parse().ok()).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(usage.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_from_meminfo() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    123 kB\n"), Some(123 * 1024));
        for broken in ["", "MemAvailable: x kB", "MemAvailable: 1 MB", "MemAvailable: 99999999999999999999 kB"] {
            assert_eq!(available(broken), None);
        }
    }

    /// Files of a group, by their names.
    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
    }

    #[test]
    fn a_group_has_left_what_neither_programs_nor_files_that_must_stay_take() {
        let folder = tempfile::tempdir().unwrap();
        let statistics = "anon 300\nactive_file 40\ninactive_file 60\nfile 100\n";
        let files = [("memory.max", "1000\n"), ("memory.current", "450\n"), ("memory.stat", statistics)];
        group(&folder.path().join("system.slice/redis.service"), &files);
        assert_eq!(left_in_groups("0::/system.slice/redis.service\n", folder.path()), Some(650));
    }

    #[test]
    fn the_narrowest_group_around_counts_and_one_without_a_limit_does_not() {
        let folder = tempfile::tempdir().unwrap();
        group(&folder.path().join("outer/inner"), &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        assert_eq!(left_in_groups("0::/outer/inner\n", folder.path()), None);
        group(&folder.path().join("outer"), &[("memory.max", "100\n"), ("memory.current", "30\n")]);
        assert_eq!(left_in_groups("0::/outer/inner\n", folder.path()), Some(70));
        group(folder.path(), &[("memory.max", "100\n"), ("memory.current", "130\n")]);
        assert_eq!(left_in_groups("0::/outer/inner\n", folder.path()), Some(0));
    }

    #[test]
    fn groups_of_version_1_have_a_tree_for_memory() {
        let folder = tempfile::tempdir().unwrap();
        let groups = "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1\n0::/\n";
        assert_eq!(left_in_groups(groups, folder.path()), None);
        // As a container sees it: its own group is the root, and the path does not exist.
        let statistics = "inactive_file 1\ntotal_inactive_file 6\ntotal_active_file 4\n";
        let files = [("memory.limit_in_bytes", "100"), ("memory.usage_in_bytes", "50"), ("memory.stat", statistics)];
        group(&folder.path().join("memory"), &files);
        assert_eq!(left_in_groups(groups, folder.path()), Some(60));
        fs::write(folder.path().join("memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(left_in_groups(groups, folder.path()), None);
    }

    #[test]
    fn something_is_free_here() {
        assert!(free_memory().is_some_and(|free| free > 0));
    }
}
