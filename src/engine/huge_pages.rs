//! Whether the kernel gives huge pages to who asks for them, as `huge_pages.cpp` does for what models lie in.

#[cfg(target_os = "linux")]
use std::io;

/// How Linux hands them out: one of the words is in brackets.
#[cfg(target_os = "linux")]
const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// `PR_THP_DISABLE_EXCEPT_ADVISED` of linux/prctl.h, since Linux 6.18.
#[cfg(target_os = "linux")]
const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;

/// Why models do not get huge pages, and what to do about it; `None` where they do.
///
/// Where all memory of the system is on huge pages, Redis turns them off for its process at the start, because its keys
/// are better without. Linux 6.18 and newer can leave them to who asks, and is told to here.
#[cfg(target_os = "linux")]
pub(super) fn obstacle() -> Option<&'static str> {
    let setting = std::fs::read_to_string(SETTING).unwrap_or_default();
    if !setting.contains("[always]") && !setting.contains("[madvise]") {
        return Some(
            "this system has no transparent huge pages; `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` \
             turns them on for who asks",
        );
    }
    if process_control(libc::PR_GET_THP_DISABLE, 0, 0).is_ok_and(|disabled| disabled == 1)
        && process_control(libc::PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED).is_err()
    {
        return Some(
            "Redis has turned transparent huge pages off for its process, as it does where they are set to 'always'; \
             `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled` before the server starts keeps them for models",
        );
    }
    None
}

/// # Errors
/// Where the kernel does not know `option` or what it is to do.
#[cfg(target_os = "linux")]
fn process_control(option: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<libc::c_int> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: both options that are used take numbers, not pointers.
    match unsafe { libc::prctl(option, first, second, UNUSED, UNUSED) } {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn obstacle() -> Option<&'static str> {
    None
}
