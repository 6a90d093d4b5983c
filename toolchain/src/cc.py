"""A C compiler and linker for one target: zig, with what it cannot take left out.

Arguments: zig, its target, a folder for its caches, and then those of a C compiler. Rust 1.98 and newer ask
the linker for aarch64 to work around erratum 843419 of the Cortex-A53; zig refuses the option. Its linker has
no such workaround, and the Cortex-A57 does not need it.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

UNKNOWN = "--fix-cortex-a53-843419"


def without(words: list[str]) -> list[str]:
    """The words without the option, in whichever of its forms it comes."""
    kept = []
    for word in words:
        if word.startswith("-Wl,") and UNKNOWN in word.split(","):
            rest = ",".join(part for part in word.split(",") if part != UNKNOWN)
            if rest != "-Wl":
                kept.append(rest)
        elif word == UNKNOWN:
            if kept and kept[-1] == "-Xlinker":
                kept.pop()
        else:
            kept.append(rewritten(word) if word.startswith("@") else word)
    return kept


def rewritten(word: str) -> str:
    """A file of further arguments: the same one, unless the option is in it."""
    file = Path(word[1:])
    try:
        inside = shlex.split(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError):
        return word  # The compiler says what is wrong with it, or it is no such file.
    kept = without(inside)
    if kept == inside:
        return word
    # The compiler reads it when it has replaced this program; rustc removes the folder that it is in.
    handle, path = tempfile.mkstemp(suffix=".args", dir=file.parent)
    lines = ['"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"\n' for word in kept]
    os.write(handle, "".join(lines).encode("utf-8", "surrogateescape"))
    os.close(handle)
    return "@" + path


if __name__ == "__main__":
    zig, target, cache, *arguments = sys.argv[1:]
    # Variables such as LIBRARY_PATH and CPATH are for this machine's compiler.
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ
    }
    kept |= {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    # Without optimization zig checks for undefined behaviour, and builds a library for that, which takes
    # 15 s, at its first link of each kind.
    options = ["cc", "-target", target, "-fno-sanitize=undefined"]
    try:
        os.execve(zig, [zig, *options, *without(arguments)], kept)
    except OSError as error:
        sys.exit(f"failed to start {zig}: {error.strerror}; `cargo xtask setup` repairs it")
