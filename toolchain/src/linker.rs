//! zig as C compiler and linker. It brings the symbols of every glibc, so what it links also starts on an older one, and
//! a machine needs no C compiler of its own.

use crate::Toolchain;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write as _;
use std::path::Path;

const CC: &str = include_str!("cc.py");

/// Writes the script `path`, which is called like a C compiler and runs zig for `target`, such as
/// `aarch64-linux-gnu.2.27`.
pub fn write(path: &Path, toolchain: &Toolchain, target: &str, cache: &Path) -> Result<()> {
    let zig = toolchain.zig().context(
        "failed to find zig in the private Python environment: remove the folder `toolchain` and try again",
    )?;
    write_script(path, &script(&toolchain.python, &zig, target, cache))
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

/// Writes an executable script to `path` atomically, unless it has this text already.
pub fn write_script(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::read_to_string(path).is_ok_and(|current| current == text) {
        return Ok(());
    }
    let fresh = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        drop(file);
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

/// A path as one word for a shell.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{quoted, script, write_script};
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    /// Takes the place of zig: prints its arguments, those in files as well, and its environment.
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

    #[test]
    fn quotes_in_paths_stay_in_their_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
