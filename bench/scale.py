#!/usr/bin/env python3
"""Millions of files in one volume: rates of creating and looking at the start and at the end, memory, mount and unmount.

  scale.py [--files N] [--one-directory N] [--json FILE]

Empty files, in directories of 10,000, and a part of them in a single directory. A rate is that of 20,000 files; to keep other
work on the machine out of it, the volume and this program have real-time priority meanwhile (as root). Memory is the largest
resident set that the volume's process ever had.
"""
import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("QSFS_BIN", str(ROOT / "build" / "release" / "bin"))
from harness import BIN, drop_caches, run  # noqa: E402

SAMPLE = 20_000
PER_DIRECTORY = 10_000
REAL_TIME = 5


class Volume:
    def __init__(self, home):
        self.home, self.mount_point, self.config = home, home / "mnt", home / "volume.toml"
        self.mount_point.mkdir()
        run(BIN / "qsfs", "init", "--config", self.config, "--data-dir", home / "local", "--local", home / "backends")

    def mount(self):
        start = time.monotonic()
        run(BIN / "qsfs-fs", "--config", self.config, self.mount_point)
        os.stat(self.mount_point)
        return time.monotonic() - start

    def unmount(self):
        start = time.monotonic()
        run(BIN / "qsfs", "umount", self.mount_point)
        return time.monotonic() - start

    def pid(self):
        # Its exit status is the verdict: after a mount the backends are being looked at.
        return int(json.loads(run(BIN / "qsfs", "status", "--json", self.mount_point, check=False).stdout)["pid"])

    def memory_mib(self):
        for line in pathlib.Path(f"/proc/{self.pid()}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
        raise AssertionError("no VmHWM")


def first(volume, urgent):
    """The volume and this process before everybody else, or as before."""
    if os.geteuid() != 0:
        return
    policy, level = (os.SCHED_FIFO, REAL_TIME) if urgent else (os.SCHED_OTHER, 0)
    tasks = [int(task) for task in os.listdir(f"/proc/{volume.pid()}/task")]
    for task in [*tasks, os.getpid()]:
        try:
            os.sched_setscheduler(task, policy, os.sched_param(level))
        except ProcessLookupError:
            pass


def create(directory, numbers):
    for number in numbers:
        os.close(os.open(directory / f"file-{number:08}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))


def rate(volume, work):
    first(volume, True)
    start = time.monotonic()
    work()
    passed = time.monotonic() - start
    first(volume, False)
    return SAMPLE / passed


def sample(volume, name, where):
    """Creates SAMPLE files in a new directory, and looks at them with cold caches."""
    directory = where / name
    directory.mkdir()
    created = rate(volume, lambda: create(directory, range(SAMPLE)))
    drop_caches()
    looked = rate(volume, lambda: [os.stat(directory / f"file-{number:08}") for number in range(SAMPLE)])
    return {"create": created, "stat": looked}


def fill(volume, files, one_directory):
    big = volume.mount_point / "big"
    big.mkdir()
    at_start = time.monotonic()
    for number in range(0, files - one_directory, PER_DIRECTORY):
        directory = volume.mount_point / f"directory-{number // PER_DIRECTORY:05}"
        directory.mkdir()
        create(directory, range(PER_DIRECTORY))
        if number % 1_000_000 == 0:
            print(f"{number:,} files, {volume.memory_mib()} MiB, {time.monotonic() - at_start:.0f} s", flush=True)
    create(big, range(one_directory - SAMPLE))
    in_big = rate(volume, lambda: create(big, range(one_directory - SAMPLE, one_directory)))
    return in_big, time.monotonic() - at_start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000_000)
    parser.add_argument("--one-directory", type=int, default=2_000_000)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-scale-", dir="/var/tmp"))
    volume = Volume(home)
    result = {"files": arguments.files}
    try:
        volume.mount()
        result["start"] = sample(volume, "start", volume.mount_point)
        result["create_in_big"], result["fill_seconds"] = fill(volume, arguments.files, arguments.one_directory)
        result["end"] = sample(volume, "end", volume.mount_point)
        for what in ("create", "stat"):
            result[f"{what}_end_of_start"] = result["end"][what] / result["start"][what]
        start = time.monotonic()
        result["listed"] = sum(1 for _ in os.scandir(volume.mount_point / "big"))
        result["list_big_seconds"] = time.monotonic() - start
        result["memory_mib"] = volume.memory_mib()
        result["unmount_seconds"] = volume.unmount()
        drop_caches()
        result["mount_seconds"] = volume.mount()
        result["memory_after_mount_mib"] = volume.memory_mib()
    finally:
        # Also when something failed: what is known took long to find out.
        print(json.dumps(result, indent=1), flush=True)
        run(BIN / "qsfs", "umount", volume.mount_point, check=False)
        run("umount", "-l", volume.mount_point, check=False)
        shutil.rmtree(home, ignore_errors=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
