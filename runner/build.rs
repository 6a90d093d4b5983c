//! Lets the runner find TVM's libraries in `lib/` beside it, wherever it is copied.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/lib");
    // Test programs lie one folder below the binary.
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
}
