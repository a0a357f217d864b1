//! Checks that the tools that build llama.cpp are there.

use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    println!("cargo:rerun-if-env-changed=PATH");
    println!("cargo:rerun-if-env-changed=CMAKE");
    println!("cargo:rerun-if-env-changed=LIBCLANG_PATH");
    let mut missing = Vec::new();
    if !runs(&std::env::var("CMAKE").unwrap_or_else(|_| "cmake".to_owned())) {
        missing.push("cmake (or set CMAKE to its path)");
    }
    if clang_sys::load().is_err() {
        missing.push("libclang (or set LIBCLANG_PATH to the directory that has it)");
    }
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "\nredis-infer builds llama.cpp from source and needs: {}\n\n  Debian, Ubuntu:  apt install cmake libclang-dev ninja-build ccache\n  macOS:           brew install cmake llvm ninja ccache\n\n`make setup` checks for these and everything else.\n",
        missing.join(", ")
    );
    ExitCode::FAILURE
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
