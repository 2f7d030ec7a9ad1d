#!/usr/bin/env python3
"""Checks that includes follow the layers: a folder may include only the folders that its row names.

Linking cannot stop a wrong include, because includes start at the repository root; this does.
"""
import pathlib
import re
import sys

ALLOWED = {
    "base": set(),
    "crypto": {"base"},
    "erasure": {"base"},
    "zdb": {"base"},
    "zstor": {"zdb", "erasure", "crypto", "base"},
    "fs": {"zstor", "zdb", "erasure", "crypto", "base"},
    "lifecycle": {"base"},
    "cli": {"zstor", "zdb", "crypto", "base"},
}
# Inside fs/: the same idea, one level down.
FS_ALLOWED = {
    "log": set(),
    "meta": {"log"},
    "volume": {"log", "meta"},
    "cache": {"log", "meta", "volume"},
    "archive": {"log", "meta", "volume", "cache"},
    "heal": {"log", "meta", "volume", "cache", "archive"},
    "service": {"log", "meta", "volume", "cache", "archive", "heal"},
    "fuse": {"log", "meta", "volume"},
    "control": {"log", "meta", "volume", "cache", "archive", "heal", "service", "fuse"},
    "program": {"log", "meta", "volume", "cache", "archive", "heal", "service", "fuse",
                "control"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def check(root: pathlib.Path) -> list[str]:
    problems = []
    for path in sorted(p for suffix in ("*.h", "*.cc") for p in root.rglob(suffix)):
        parts = path.relative_to(root).parts
        if parts[0] not in ALLOWED:
            continue
        for included in INCLUDE.findall(path.read_text()):
            to = included.split("/")
            where = f"{path.relative_to(root)} includes {included}"
            if to[0] not in ALLOWED:
                problems.append(f"{where}: includes start at the repository root")
            elif to[0] != parts[0] and to[0] not in ALLOWED[parts[0]]:
                problems.append(f"{where}: {parts[0]} may not use {to[0]}")
            elif to[0] == parts[0] == "fs" and len(parts) > 2 and len(to) > 2:
                if to[1] != parts[1] and to[1] not in FS_ALLOWED.get(parts[1], set()):
                    problems.append(f"{where}: fs/{parts[1]} may not use fs/{to[1]}")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    for problem in found:
        print(problem)
    sys.exit(1 if found else 0)
