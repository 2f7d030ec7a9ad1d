#!/usr/bin/env python3
"""House rules that a grep can check: file length, banned calls, secrets, whole names."""
import pathlib
import re
import subprocess
import sys

LINES_MAX = 800
BANNED = [
    (re.compile(r"\busing namespace\b"), "using namespace"),
    (re.compile(r"\bstd::thread\b(?!::)"), "threads are started by base/thread.h"),
    (re.compile(r"\.detach\(\)"), "no thread is detached"),
    (re.compile(r"\bthis_thread::sleep_for\b|\busleep\(|\bnanosleep\("), "no sleeping: wait for the condition"),
    (re.compile(r"\bsystem\(|\bpopen\("), "no shell"),
    (re.compile(r"\bthrow\b(?!\s*;)"), "nothing of ours throws"),
]
# (file, rule): why it may.
EXCEPTIONS = {
    ("base/thread.cc", "threads are started by base/thread.h"),
    ("base/clock.cc", "no sleeping: wait for the condition"),
    # An assertion of toml++ must not end the process; the file catches it itself.
    ("zstor/config_toml.cc", "nothing of ours throws"),
}
COMMENT = re.compile(r'//.*?$|/\*.*?\*/|"(?:\\.|[^"\\])*"', re.M | re.S)


def tracked(root: pathlib.Path) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.h", "*.cc"], cwd=root, capture_output=True, text=True, check=True)
    return listed.stdout.split()


def check(root: pathlib.Path) -> list[str]:
    problems = []
    for name in tracked(root):
        path = root / name
        if not path.exists():
            continue
        text = path.read_text()
        lines = text.count("\n")
        if lines > LINES_MAX:
            problems.append(f"{name}: {lines} lines, at most {LINES_MAX}: what are the two ideas in it?")
        if name.endswith(".h") and "#pragma once" not in text:
            problems.append(f"{name}: no #pragma once")
        code = COMMENT.sub("", text)
        in_product = not name.startswith(("tests/", "bench/"))
        for pattern, rule in BANNED:
            if pattern.search(code) and in_product and (name, rule) not in EXCEPTIONS:
                problems.append(f"{name}: {rule}")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    for problem in found:
        print(problem)
    sys.exit(1 if found else 0)
