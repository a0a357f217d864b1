//! Compiles the C++ of `src/engine`, sets the link arguments of the module, and stamps version facts
//! into it.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    for path in [".git/HEAD", ".git/refs/heads"] {
        // Cargo would take a path that does not exist, outside a checkout, for one that always changes.
        if std::path::Path::new(path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }

    // Missing tools are reported by the build script of redis-infer-toolcheck, which runs before anything else.
    let sources = ["src/engine/trampoline.cpp", "src/engine/team.cpp", "src/engine/huge_pages.cpp"];
    for path in sources.iter().chain(&["src/engine/catching.h"]) {
        println!("cargo:rerun-if-changed={path}");
    }
    cc::Build::new().cpp(true).std("c++20").files(sources).compile("infer_trampoline");

    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // See huge_pages.cpp.
        println!("cargo:rustc-link-arg=-Wl,--wrap=ggml_aligned_malloc,--wrap=ggml_aligned_free");
        // Threads of libgomp and thread-local destructors live in the library: it must stay mapped after MODULE UNLOAD.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // No symbol of llama.cpp may leak: another module in the same process can carry another version of it.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
        // The section bounds of the crate linkme, which redis-module uses, are nobody else's business either.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,start-stop-visibility=hidden");
    }

    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    println!("cargo:rustc-env=REDIS_INFER_LLAMA_VERSION={}", locked_version(&lock, "llama-cpp-sys-2"));
    println!("cargo:rustc-env=REDIS_INFER_COMMIT={}", commit());
}

/// The version that Cargo.lock pins for `package`, or "unknown".
fn locked_version(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    match lines.next().and_then(|line| line.strip_prefix("version = ")) {
        Some(version) => version.trim_matches('"').to_owned(),
        None => "unknown".to_owned(),
    }
}

/// The commit the module is built from, or "unknown" outside a git checkout.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    match output {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
