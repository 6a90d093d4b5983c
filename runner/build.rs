//! Links the runner to TVM's library, and lets it find that in `lib/` beside it, wherever it is copied.
//!
//! By `DT_RPATH`, not `DT_RUNPATH`, which linkers write by default: the dynamic linker looks into `LD_LIBRARY_PATH` before
//! the latter, and would load another `libtvm_ffi.so` from there.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    // Test programs lie one folder below the binary.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // The build script of tvm-ffi-sys asks the same, but once only: where it found nothing at its first run, as in a plain
    // `cargo build --workspace`, cargo keeps that answer.
    let asked = Command::new("tvm-ffi-config").arg("--libdir").output();
    let Ok(answer) = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        println!(
            "cargo::error=the runner needs TVM's library, which cargo xtask puts in place: build it by `cargo xtask \
             build`, and run its tests by `cargo xtask test NAME`"
        );
        return;
    };
    println!("cargo::rerun-if-changed={answer}/libtvm_ffi.so");
    println!("cargo::rustc-link-search=native={answer}");
    println!("cargo::rustc-link-lib=dylib=tvm_ffi");
}
