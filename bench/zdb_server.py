#!/usr/bin/env python3
"""qsfs-zdb beside redis-server: the same load (zdb_load) on both in turn, medians and ratios.

redis-server keeps nothing on disk; qsfs-zdb writes every value to its data files, with --sync interval (the default)
unless another is given."""
import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("QSFS_BIN", TOP / "build" / "release" / "bin"))
KIB = 1024
# (bytes of a value, keys, requests of one measurement): a second or so each.
SIZES = [(256 * KIB, 512, 2000), (4 * KIB, 20_000, 40_000)]
SHAPES = [(1, 1), (1, 16), (16, 1), (16, 16)]  # (connections, requests on their way on each)


class Server:
    def __init__(self, name, home, words):
        self.name = name
        self.log = open(home / f"{name}.log", "wb")
        self.process = subprocess.Popen(words, stdout=self.log, stderr=subprocess.STDOUT)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def __enter__(self):
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                if time.monotonic() > end:
                    raise


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def redis_server(home):
    port = free_port()
    server = Server("redis", home, ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", home])
    server.port = port
    return server


def zdb_server(home, sync):
    port = free_port()
    server = Server("zdb", home, [BIN / "qsfs-zdb", "--data", home / "data", "--listen", f"127.0.0.1:{port}", "--sync", sync])
    server.port = port
    return server


def measure(server, op, size, keys, connections, depth, requests):
    words = [BIN / "zdb_load", "--port", server.port, "--op", op, "--size", size, "--keys", keys, "--connections", connections,
             "--depth", depth, "--requests", requests]
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, timeout=300)
    return requests / float(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sync", default="interval")
    parser.add_argument("--scale", type=float, default=1, help="times as many requests")
    parser.add_argument("--only", default="", help="part of a row's name")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("bench: redis-server is not installed (apt-get install redis-server)")
    rows = []
    print(f"{'':<28}{'qsfs-zdb':>12}{'redis':>12}{'ratio':>8}   (medians of {arguments.rounds}, requests a second)")
    for size, keys, requests in SIZES:
        requests = int(requests * arguments.scale)
        for op in ("set", "get"):
            for connections, depth in SHAPES:
                name = f"{op.upper()} {size // KIB} KiB, {connections} x {depth}"
                if arguments.only not in name:
                    continue
                rates = {"zdb": [], "redis": []}
                # Data files of one row only: the disk is not filled, and redis does not grow.
                home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
                try:
                    with zdb_server(home, arguments.sync) as zdb, redis_server(home) as redis:
                        for server in (zdb, redis):
                            measure(server, "set", size, keys, 4, 4, keys)
                        for _ in range(arguments.rounds):
                            for server in (zdb, redis):
                                rates[server.name].append(measure(server, op, size, keys, connections, depth, requests))
                finally:
                    shutil.rmtree(home)
                ours, theirs = statistics.median(rates["zdb"]), statistics.median(rates["redis"])
                rows.append({"row": name, "zdb": ours, "redis": theirs, "ratio": ours / theirs, "rates": rates})
                print(f"{name:<28}{ours:>12,.0f}{theirs:>12,.0f}{ours / theirs:>8.2f}", flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
