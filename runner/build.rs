//! Links the runner to TVM's library, which it loads from `lib/` next to the runner, wherever that is copied.
//!
//! The path is a `DT_RPATH`, not a `DT_RUNPATH`, the default of linkers: the dynamic linker searches `LD_LIBRARY_PATH` before
//! `DT_RUNPATH`, and would load another `libtvm_ffi.so` from there.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    // Test programs are one folder below the binary.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // The build script of tvm-ffi-sys runs the same program, but cargo caches its result: if it found nothing in its first
    // run, as in a plain `cargo build --workspace`, it is not run again.
    let output = Command::new("tvm-ffi-config").arg("--libdir").output();
    let Ok(folder) = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) else {
        println!(
            "cargo::error=the runner needs TVM's library, which cargo xtask installs: build the runner with `cargo xtask build`, and run \
             its tests with `cargo xtask test NAME`"
        );
        return;
    };
    println!("cargo::rerun-if-changed={folder}/libtvm_ffi.so");
    println!("cargo::rustc-link-search=native={folder}");
    println!("cargo::rustc-link-lib=dylib=tvm_ffi");
}
