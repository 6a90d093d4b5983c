"""Runs pip with those of its configured settings that say where packages come from, and no others.

Arguments: the names of these settings, joined by commas, and then pip's own arguments. pip also reads
configuration files; a `prefix`, `target` or `user` there would install somewhere else. So the files are read
here, by pip itself, and the settings that are kept become environment variables, which the files must not
replace.
"""

import ast
import os
import subprocess
import sys

kept, verb = sys.argv[1].split(","), sys.argv[2]
pip = [sys.executable, "-I", "-X", "utf8", "-m", "pip"]
listed = subprocess.run(
    [*pip, "config", "list"],
    stdout=subprocess.PIPE,
    stdin=subprocess.DEVNULL,
    encoding="utf-8",
    check=False,
)
if listed.returncode != 0:
    sys.exit("failed to read pip's configuration files: correct the file named above")
# A setting of the command stands above one of all commands, and the user's environment above both.
for section in (verb, "global"):
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        place, _, option = key.partition(".")
        name = "PIP_" + option.upper().replace("-", "_")
        if place == section and name in kept:
            os.environ.setdefault(name, str(ast.literal_eval(value)))
os.environ["PIP_CONFIG_FILE"] = os.devnull
os.execv(sys.executable, [*pip, *sys.argv[2:]])
