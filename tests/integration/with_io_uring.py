#!/usr/bin/env python3
"""Runs a command while the kernel offers io_uring to FUSE: with_io_uring.py COMMAND …

QSFS_TEST_TRANSPORT=io_uring tells the test to mount with it.

The kernel's switch is one for the machine: those who need it wait for each other, and the one who has turned it on turns it
off. Exits 77 (skipped) where the kernel has no such switch.
"""
import fcntl
import os
import pathlib
import subprocess
import sys

SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")
LOCK = pathlib.Path("/run/lock/qsfs-test-io-uring")


def main():
    try:
        with SWITCH.open(), LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = SWITCH.read_text()
            SWITCH.write_text("Y")
            try:
                return subprocess.run(sys.argv[1:], env={**os.environ, "QSFS_TEST_TRANSPORT": "io_uring"}, check=False).returncode
            finally:
                SWITCH.write_text(before)
    except (FileNotFoundError, PermissionError) as error:
        print(f"skipped: {error}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
