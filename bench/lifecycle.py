#!/usr/bin/env python3
"""Times of qsfsd's calls with many volumes, and its memory. Each figure is the median of its rounds.

Volumes have three embedded backends on this machine's disk and the machine's own network, so that what is measured is
qsfsd and the start of qsfs-fs, not a network."""
import os
import pathlib
import statistics
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("QSFS_BIN", str(TOP / "build" / "release" / "bin"))
sys.path.insert(0, str(TOP / "tests" / "integration"))

from qsfsd_harness import Daemon  # noqa: E402: needs the path above.

ROUNDS = 5
MANY = 20
FIFTY = 50


def timed(run):
    begin = time.monotonic()
    run()
    return time.monotonic() - begin


def show(what, seconds):
    print(f"{what:<60} {statistics.median(seconds):6.2f} s   ({min(seconds):.2f} to {max(seconds):.2f})", flush=True)


def main():
    with Daemon().start() as daemon:
        new, again, delete = [], [], []
        for i in range(ROUNDS):
            new.append(timed(lambda: daemon.mount(f"one-{i}")))
            (daemon.root / "mounts" / f"one-{i}" / "file").write_bytes(os.urandom(1 << 20))
            delete.append(timed(lambda: daemon.delete_and_wait(f"one-{i}")))
            again.append(timed(lambda: daemon.mount(f"one-{i}")))
            daemon.delete_and_wait(f"one-{i}")
        show("mount one new volume", new)
        show("delete it with 1 MiB to archive, until nothing is left", delete)
        show("mount it again: recovered from its backends", again)
        mounts, deletes = [], []
        for i in range(ROUNDS):
            names = [f"many-{i}-{j}" for j in range(MANY)]
            mounts.append(timed(lambda: daemon.together(names, daemon.mount)))
            deletes.append(timed(lambda: daemon.together(names, daemon.delete_and_wait)))
        show(f"mount {MANY} new volumes at once", mounts)
        show(f"delete {MANY} empty volumes at once", deletes)
    with Daemon().start() as daemon:
        print("qsfsd without a volume:", daemon.usage())
        daemon.mount("v0")
        print("with one:", daemon.usage())
        for start in range(1, FIFTY, MANY):
            daemon.together([f"v{i}" for i in range(start, min(start + MANY, FIFTY))], daemon.mount)
        print(f"with {FIFTY}:", daemon.usage())


if __name__ == "__main__":
    main()
