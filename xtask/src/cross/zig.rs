//! zig as C compiler and linker: it carries the symbols of every glibc, so what it links starts on an old one.

use super::{Target, quoted, with_cross_packages, write_script};
use crate::python::Toolchain;
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const CC: &str = include_str!("cc.py");

/// Writes `cc` to `folder`, which compiles and links for `target`, and installs zig where it is not there yet.
pub(crate) fn linker(
    workspace: &Workspace,
    toolchain: &Toolchain,
    target: &Target,
    folder: &Path,
) -> Result<PathBuf> {
    with_cross_packages(workspace)?;
    let zig = toolchain
        .libraries
        .iter()
        .find_map(|library| library.ancestors().nth(3).map(|packages| packages.join("ziglang/zig")))
        .filter(|zig| zig.exists())
        .context("failed to find zig in the private Python environment: remove target/edgepipe/toolchain and try again")?;
    let path = folder.join("cc");
    write_script(
        &path,
        &script(&toolchain.python, &zig, &name(target), &workspace.cross().join("zig-cache")),
    )?;
    Ok(path)
}

/// Starts [`CC`] with what it needs before the compiler's own arguments.
fn script(python: &Path, zig: &Path, target: &str, cache: &Path) -> String {
    format!(
        "#!/bin/sh\nexec {} -I -S -X utf8 -c {} {} {target} {} \"$@\"\n",
        quoted(python),
        quoted(Path::new(CC)),
        quoted(zig),
        quoted(cache)
    )
}

/// The target in zig's words: `aarch64-linux-gnu.2.27`.
fn name(target: &Target) -> String {
    let version = target.glibc.as_ref().map(|version| format!(".{version}")).unwrap_or_default();
    format!("{}-linux-gnu{version}", target.architecture())
}

#[cfg(test)]
mod tests {
    use super::{Target, name, script};
    use crate::cross::write_script;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn zig_is_told_the_version_of_the_c_library() {
        let target = |glibc: Option<&str>| Target {
            triple: "aarch64-unknown-linux-gnu".to_owned(),
            glibc: glibc.map(str::to_owned),
        };
        assert_eq!(name(&target(Some("2.27"))), "aarch64-linux-gnu.2.27");
        assert_eq!(name(&target(None)), "aarch64-linux-gnu");
    }

    /// Stands for zig: prints its arguments, those in files as well, and its environment.
    const ZIG: &str = "#!/bin/sh\nfor word; do case $word in @*) cat \"${word#@}\";; *) printf '%s\\n' \"$word\";; esac; done\n\
                       env | sort | grep -E '^(LIBRARY_PATH|ZIG_LOCAL_CACHE_DIR)='\n";

    #[test]
    fn zig_gets_every_argument_but_the_one_that_it_refuses() {
        let folder = std::env::temp_dir().join(format!("edgepipe it's zig-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (zig, cc) = (folder.join("zig"), folder.join("cc"));
        write_script(&zig, ZIG).unwrap();
        write_script(
            &cc,
            &script(Path::new("python3"), &zig, "aarch64-linux-gnu.2.27", &folder.join("a cache")),
        )
        .unwrap();
        let run = |arguments: &[&str]| {
            let output = Command::new(&cc)
                .args(arguments)
                .env("LIBRARY_PATH", "/x")
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).unwrap();
            let first = "cc\n-target\naarch64-linux-gnu.2.27\n-fno-sanitize=undefined\n";
            let last = format!("ZIG_LOCAL_CACHE_DIR={}\n", folder.join("a cache").display());
            text.strip_prefix(first).and_then(|text| text.strip_suffix(&last)).unwrap().to_owned()
        };
        let flag = "--fix-cortex-a53-843419";
        let table: [(&[&str], &str); 8] = [
            (&["-Wl,--fix-cortex-a53-843419", "a.o"], "a.o\n"),
            (&["-Wl,a,--fix-cortex-a53-843419,b"], "-Wl,a,b\n"),
            (&["-Wl,--fix-cortex-a53-843419,b,--fix-cortex-a53-843419"], "-Wl,b\n"),
            (&["-Wl,-rpath,$ORIGIN/lib"], "-Wl,-rpath,$ORIGIN/lib\n"),
            (&["-Xlinker", flag, "-Xlinker", "-s"], "-Xlinker\n-s\n"),
            (&[flag], ""),
            (
                &["--fix-cortex-a53-835769", "-Wl,--fix-cortex-a53-843419=no"],
                "--fix-cortex-a53-835769\n-Wl,--fix-cortex-a53-843419=no\n",
            ),
            (&["-o", "a b", "it's \"x\"", ""], "-o\na b\nit's \"x\"\n\n"),
        ];
        for (arguments, expected) in table {
            assert_eq!(run(arguments), expected, "{arguments:?}");
        }
        // Files of arguments, as rustc writes them for long command lines: one a line, spaces and backslashes escaped.
        fs::write(folder.join("plain args"), "a.o\n-Wl,-s\n").unwrap();
        assert_eq!(run(&["@plain args"]), "a.o\n-Wl,-s\n");
        fs::write(folder.join("args"), "a\\ b.o\n-Wl,x,--fix-cortex-a53-843419\n\"-Wl,--fix-cortex-a53-843419\"\nc\\\\d\n-Xlinker\n--fix-cortex-a53-843419\n").unwrap();
        assert_eq!(run(&["@args"]), "\"a b.o\"\n\"-Wl,x\"\n\"c\\\\d\"\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
