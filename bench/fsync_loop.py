#!/usr/bin/env python3
"""Rate of small synchronous writes: 4 KiB appended or overwritten, each followed by fsync.

usage: fsync_loop.py DIRECTORY...     each directory in turn, round by round; prints the median rate of each

Give a mount and a directory of the disk below it, so that both meet the same neighbours.
"""
import os
import pathlib
import statistics
import sys
import threading
import time

ROUNDS = int(os.environ.get("ROUNDS", "5"))
COUNT = int(os.environ.get("COUNT", "1000"))
BLOCK = os.urandom(4096)
FILE_BLOCKS = 4096  # What the overwrites are spread over: 16 MiB.


def rate(count, work):
    start = time.perf_counter()
    for i in range(count):
        work(i)
    return count / (time.perf_counter() - start)


def append(directory):
    path = directory / f"append-{os.getpid()}"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        return rate(COUNT, lambda i: (os.pwrite(fd, BLOCK, i * len(BLOCK)), os.fsync(fd)))
    finally:
        os.close(fd)
        path.unlink()


def overwrite(directory):
    path = directory / f"overwrite-{os.getpid()}"
    path.write_bytes(BLOCK * FILE_BLOCKS)
    fd = os.open(path, os.O_WRONLY)
    try:
        os.fsync(fd)
        return rate(COUNT, lambda i: (os.pwrite(fd, BLOCK, i * 7919 % FILE_BLOCKS * len(BLOCK)), os.fsync(fd)))
    finally:
        os.close(fd)
        path.unlink()


def threads(directory):
    """16 files, 16 threads: they share commits."""
    def run(number):
        fd = os.open(directory / f"thread-{os.getpid()}-{number}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        for i in range(COUNT // 8):
            os.pwrite(fd, BLOCK, i * len(BLOCK))
            os.fsync(fd)
        os.close(fd)
        (directory / f"thread-{os.getpid()}-{number}").unlink()

    workers = [threading.Thread(target=run, args=(i,)) for i in range(16)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 16 * (COUNT // 8) / (time.perf_counter() - start)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    directories = [pathlib.Path(name) for name in sys.argv[1:]]
    for work in (append, overwrite, threads):
        found = {directory: [] for directory in directories}
        for _ in range(ROUNDS):
            for directory in directories:
                found[directory].append(work(directory))
        for directory in directories:
            rates = sorted(found[directory])
            print(f"{work.__name__:9} {statistics.median(rates):8.0f} fsync/s "
                  f"({rates[0]:.0f} to {rates[-1]:.0f})  {directory}", flush=True)


if __name__ == "__main__":
    main()
