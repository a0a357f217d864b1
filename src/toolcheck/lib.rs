//! Empty: the work of this crate is its build script. It has no dependencies of weight, so cargo runs it in the first
//! seconds of a build, long before llama-cpp-sys-2 would fail on a missing tool with a page of backtrace.
