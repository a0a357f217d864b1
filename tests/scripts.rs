//! The set-up scripts, without the network. They are for Linux and macOS; the tests need bash, as the Makefile does.
// What Clippy allows in tests (`unwrap`) is allowed in this whole target, which is nothing but tests.
#![cfg(test)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `script` in the repository's folder with nothing of this process' settings, and `cache` for downloads.
fn bash(script: &str, cache: &Path, path_first: &Path) -> Output {
    let path = format!("{}:{}", path_first.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    for setting in ["CI", "REDIS_INFER_REDIS_SERVER"] {
        command.env_remove(setting);
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("REDIS_INFER_CACHE", cache).env("PATH", path);
    command.args(["-euc", script]).output().unwrap()
}

fn executable(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The first row of vendor/manifest of that name: its checksum and its place in the cache.
fn row(name: &str) -> (String, String) {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("vendor/manifest")).unwrap();
    let line = manifest.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    let fields: Vec<&str> = line.split_whitespace().collect();
    (fields[5].to_owned(), fields[6].to_owned())
}

#[test]
fn a_file_with_a_wrong_checksum_stops_with_both_sums() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, place) = row("minilm");
    let file = folder.path().join(place);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "something else").unwrap();
    let output = bash("scripts/fetch.sh minilm", folder.path(), folder.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&format!("expected  {expected}")), "{said}");
    // What sha256sum says of "something else".
    let actual = "f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8";
    assert!(said.contains(&format!("actual    {actual}")) && said.contains("delete that file"), "{said}");
}

#[test]
fn what_is_in_the_cache_is_neither_fetched_nor_hashed_again() {
    let folder = tempfile::tempdir().unwrap();
    let (sum, place) = row("smollm2");
    let file = folder.path().join(&place);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "not the model, but stamped as it").unwrap();
    // Anything that would fetch or hash is noticed.
    for program in ["python3", "pip", "sha256sum", "shasum"] {
        executable(&folder.path().join(program), "echo called >&2; exit 1");
    }
    let stamp = format!(
        "mkdir -p \"$REDIS_INFER_CACHE/stamps\"; echo \"{sum} $(stat -c '%s %.9Y' '{0}' 2>/dev/null || stat -f '%z %Fm' '{0}')\" >\"$REDIS_INFER_CACHE/stamps/{1}\"",
        file.display(),
        place.replace('/', "__")
    );
    let output = bash(&format!("{stamp}; scripts/fetch.sh smollm2"), folder.path(), folder.path());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_redis_server_on_path_is_used_from_version_8_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("redis-server");
    let chosen = || {
        let output = bash(". scripts/env.sh; redis8_path", folder.path(), folder.path());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    for (version, is_used) in [
        ("Redis server v=8.4.0 sha=00000000:0 malloc=jemalloc", true),
        ("Redis server v=10.0.0 sha=00000000:0", true),
        ("Redis server v=7.0.15 sha=00000000:0", false),
        ("Valkey server v=9.1.2 sha=00000000:0", false),
    ] {
        executable(&server, &format!("echo '{version}'"));
        assert_eq!(chosen() == server.to_str().unwrap(), is_used, "{version}: {}", chosen());
    }
}

#[test]
fn a_name_that_the_manifest_lacks_is_refused_with_those_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let output = bash("scripts/fetch.sh nothing", folder.path(), folder.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no \"nothing\"") && said.contains("smollm2"), "{said}");
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn llama_cpp_is_compiled_for_this_cpu_or_for_any_with_avx2() {
    use std::arch::is_x86_feature_detected as detected;
    let folder = tempfile::tempdir().unwrap();
    let settings =
        |cpu: &str| bash(&format!("REDIS_INFER_CPU={cpu}; . scripts/env.sh; env"), folder.path(), folder.path());
    let is_on = |cpu: &str, name: &str| {
        String::from_utf8(settings(cpu).stdout).unwrap().lines().any(|line| line == format!("GGML_{name}=ON"))
    };
    for (name, present) in [
        ("AVX2", detected!("avx2")),
        ("BMI2", detected!("bmi2")),
        ("AVX512", detected!("avx512f") && detected!("avx512bw") && detected!("avx512vl")),
        ("AVX512_VNNI", detected!("avx512vnni")),
        ("AVX512_BF16", detected!("avx512bf16")),
    ] {
        assert_eq!(is_on("native", name), present, "{name}");
    }
    assert!(is_on("portable", "AVX2") && !is_on("portable", "AVX512"));
    let refused = settings("fast");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("native or portable"));
}
