#!/usr/bin/env python3
"""The foreground while backends are black holes: 2 of 6 are stopped (they accept, and never answer), against all healthy.

  black_hole.py [--mib N] [--rounds N] [--json FILE]

Each round is a pass with all backends well and one that begins the moment two of them are stopped. A pass evicts
everything, then reads 4 KiB of each stripe in random order, past the kernel's pages (each a fetch of 1 MiB from four
backends), while another thread writes 4 KiB and fsyncs, and a third creates and lists files. Latencies in milliseconds.
"""
import argparse
import json
import mmap
import os
import pathlib
import random
import signal
import statistics
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("QSFS_BIN", str(ROOT / "build" / "release" / "bin"))
from harness import BIN, World, drop_caches, run, wait_until  # noqa: E402

MIB = 1 << 20


def timed(latencies, action):
    start = time.monotonic()
    action()
    latencies.append(1000 * (time.monotonic() - start))


def read_stripes(path, mib, seed, latencies):
    offsets = list(range(mib))
    random.Random(seed).shuffle(offsets)
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as buffer:
        for offset in offsets:
            timed(latencies, lambda at=offset: os.preadv(file, [buffer], at * MIB))
    os.close(file)


class Background(threading.Thread):
    """Does something again and again until it is told to stop."""

    def __init__(self, action):
        super().__init__()
        self.action, self.latencies, self.done = action, [], threading.Event()
        self.start()

    def run(self):
        number = 0
        while not self.done.wait(0.005):
            timed(self.latencies, lambda: self.action(number))
            number += 1

    def end(self):
        self.done.set()
        self.join()
        return self.latencies


def one_pass(world, mib, seed, victims):
    run(BIN / "qsfs", "evict", world.mount_point)
    drop_caches()
    file = os.open(world.mount_point / "synced", os.O_RDWR | os.O_CREAT)
    block = os.urandom(4096)

    def write(number):
        os.pwrite(file, block, 4096 * (number % 1024))
        os.fsync(file)

    def names(number):
        (world.mount_point / f"name{number % 64}").touch()
        os.listdir(world.mount_point)
    for server in victims:
        os.kill(server.process.pid, signal.SIGSTOP)
    latencies = {"read": []}
    writer, lister = Background(write), Background(names)
    try:
        read_stripes(world.mount_point / "file", mib, seed, latencies["read"])
    finally:
        latencies["write + fsync"], latencies["create + list"] = writer.end(), lister.end()
        os.close(file)
        for server in victims:
            os.kill(server.process.pid, signal.SIGCONT)
    return latencies


def wait_well(world):
    wait_until("all answer again", lambda: all(row["state"] == "healthy" for row in world.status()["backends"])
               or time.sleep(0.5))
    world.sync_remote()


def summary(values):
    ordered = sorted(values)
    return {"count": len(ordered), "p50": statistics.median(ordered), "p99": ordered[int(0.99 * (len(ordered) - 1))],
            "max": ordered[-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    seen = {"healthy": {}, "two black holes": {}}
    with World(data=6, meta=3, k=4, n=6, extra_config='archive.dead_after = "1h"\narchive.scrub_interval = "0"') as world:
        world.mount()
        with open(world.mount_point / "file", "wb") as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(MIB))
        world.sync_remote()
        for number in range(arguments.rounds):
            for name, victims in (("healthy", []), ("two black holes", world.data[2 * number % 6:][:2])):
                for what, latencies in one_pass(world, arguments.mib, number, victims).items():
                    seen[name].setdefault(what, []).extend(latencies)
                wait_well(world)
    result = {name: {what: summary(values) for what, values in of.items()} for name, of in seen.items()}
    print(f"{'':<16}{'':<18}{'count':>8}{'p50':>10}{'p99':>10}{'max':>10}   ms")
    for what in result["healthy"]:
        for name, of in result.items():
            row = of[what]
            print(f"{what:<16}{name:<18}{row['count']:>8}{row['p50']:>10.2f}{row['p99']:>10.2f}{row['max']:>10.2f}")
        ratio = {key: result["two black holes"][what][key] / result["healthy"][what][key] for key in ("p50", "p99", "max")}
        print(f"{what:<16}{'ratio':<18}{'':>8}{ratio['p50']:>10.2f}{ratio['p99']:>10.2f}{ratio['max']:>10.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
