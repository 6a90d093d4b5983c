"""Whether the packages of a lock are really in this environment, whole, and can be imported.

Arguments: the lock, then modules to import. Prints what is wrong, one fault a line; exit code 1 if there is
any.
"""

import importlib
import importlib.metadata
import re
import sys
from pathlib import Path

lock, *modules = sys.argv[1:]
home = Path(sys.prefix).resolve()
faults = []
if sys.prefix == sys.base_prefix:
    faults.append(f"{sys.executable} is no virtual environment")
pins = {}
for line in Path(lock).read_text(encoding="utf-8").splitlines():
    pin = re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)( *;)?", line)
    if pin:
        pins.setdefault(pin[1], []).append((pin[2], bool(pin[3])))
for name, versions in pins.items():
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        # One with conditions only may be for other versions of Python.
        if not all(conditional for _, conditional in versions):
            faults.append(f"{name} is not installed")
        continue
    wanted = [version for version, _ in versions]
    if found.version not in wanted:
        faults.append(f"{name} is {found.version}, not {' or '.join(wanted)}")
    if home not in Path(found.locate_file("")).resolve().parents:
        faults.append(f"{name} comes from {found.locate_file('')}, outside the environment")
    gone = [
        file for file in found.files or [] if file.suffix != ".pyc" and not file.locate().exists()
    ]
    if gone or not found.files:
        faults.append(f"{name} is damaged: {gone[0] if gone else 'its list of files'} is missing")
for name in [] if faults else modules:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        faults.append(f"{name} cannot be imported: {type(error).__name__}: {reason}")
        continue
    if home not in Path(module.__file__ or "/").resolve().parents:
        faults.append(f"{name} is imported from {module.__file__}, outside the environment")
for fault in faults:
    print(fault)
sys.exit(bool(faults))
