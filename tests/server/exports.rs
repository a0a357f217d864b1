//! What the module shows to the process that loads it. Linux only: elsewhere the linker has other rules.
#![cfg(target_os = "linux")]

use std::process::Command;

use crate::harness::module;

#[test]
fn only_the_entry_points_are_visible() {
    let output = Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(module()).output();
    let symbols = String::from_utf8(output.expect("nm of binutils, which every compiler brings").stdout).unwrap();
    let mut names: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["RedisModule_OnLoad", "RedisModule_OnUnload"]);
}
