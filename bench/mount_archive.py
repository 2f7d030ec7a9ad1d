#!/usr/bin/env python3
"""Cold reads, archiving and memory of a real mount with nine servers on this machine.

  mount_archive.py [--gib N] [--limit-mib M] [--read-mib R]

Part 1: a file is written, archived, evicted and read back: shards fetched for random 4 KiB reads, and the speed of a
sequential read. Part 2: N GiB are written through a cache limit of M MiB while the memory of qsfs-fs, the size of its
directory and the latency of a foreground stat are watched.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("QSFS_BIN", str(ROOT / "build" / "release" / "bin"))
import harness  # noqa: E402
from harness import World, run  # noqa: E402


def sample(size):
    """Real bytes: headers, sources and documents of this machine, one after another."""
    out = bytearray()
    for folder, _, names in os.walk("/usr/include"):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                out += pathlib.Path(path).read_bytes()
                if len(out) >= size:
                    return bytes(out[:size])
    return bytes((out * (size // len(out) + 1))[:size])


def sequential_read(path):
    """MB/s; the kernel has none of the file, and qsfs-fs neither. What the servers' files have in the page cache stays."""
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        size = 0
        while got := file.readinto(buffer):
            size += got
        return size / (time.monotonic() - start) / 1e6


def decode_alone(block, threads):
    """MB/s of the stripe codec on these bytes in memory, with nothing around it."""
    with tempfile.NamedTemporaryFile(prefix="qsfs-bench-") as file:
        file.write(block)
        file.flush()
        told = run(harness.BIN / "archive_bench", file.name, "--only", "codec decode", "--threads", threads, "--json")
        return json.loads(told.stdout)["results"]["codec decode"]["mb_per_s"]


def cold_reads(read_mib):
    text = sample(64 << 20)
    noise = os.urandom(64 << 20)
    result = {}
    with World() as world:
        world.mount()
        for kind, block in (("text", text), ("random", noise)):
            path = world.mount_point / kind
            with open(path, "wb", buffering=0) as file:
                for _ in range(read_mib // 64):
                    file.write(block)
            start = time.monotonic()
            world.sync_remote()
            result[f"{kind}_archive_tail_s"] = round(time.monotonic() - start, 2)
            speeds = []
            for _ in range(3):
                world.evict()
                speeds.append(sequential_read(path))
            cold = statistics.median(speeds)
            result[f"{kind}_cold_sequential_MB_per_s"] = round(cold)
            for threads in sorted({1, os.cpu_count()}):
                alone = decode_alone(block, threads)
                result[f"{kind}_decode_{threads}_threads_MB_per_s"] = round(alone)
                result[f"{kind}_cold_sequential_to_decode_{threads}_threads"] = round(cold / alone, 2)
            world.evict()
            rng = random.Random(1)
            worst = 0
            with open(path, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                for _ in range(20):
                    before = world.metric("qsfs_shards_read_total")
                    os.pread(file.fileno(), 4096, rng.randrange((read_mib << 20) // 4096) * 4096)
                    worst = max(worst, world.metric("qsfs_shards_read_total") - before)
            result[f"{kind}_shards_per_random_4k_read_max"] = worst
    return result


def directory_bytes(path):
    total = {"data": 0, "other": 0}
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                used = os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
            total["data" if name.endswith(".data") else "other"] += used
    return total


def through_a_small_cache(gib, limit_mib):
    text = sample(32 << 20)
    noise = os.urandom(32 << 20)
    with World(extra_config=f"max_zdb_data_dir_size = {limit_mib}") as world:
        world.mount()
        seen = {"rss": 0, "data": 0, "other": 0}
        stats = []
        stop = threading.Event()

        def watch():
            while not stop.wait(0.5):
                for line in pathlib.Path(f"/proc/{world.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM"):
                        seen["rss"] = int(line.split()[1]) * 1024
                for key, value in directory_bytes(world.data_dir).items():
                    seen[key] = max(seen[key], value)
                start = time.monotonic()
                (world.mount_point / f"probe{len(stats)}").touch()
                os.listdir(world.mount_point)
                stats.append(time.monotonic() - start)

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.monotonic()
        for i in range(gib):
            with open(world.mount_point / f"file{i}", "wb", buffering=0) as file:
                for j in range(32):
                    file.write(text if (i + j) % 2 else noise)
        wrote = time.monotonic() - start
        world.sync_remote()
        archived = time.monotonic() - start
        stop.set()
        watcher.join()
        first = (world.mount_point / "file0").read_bytes()
        assert first == b"".join(text if j % 2 else noise for j in range(32)), "file0 has other content"
        return {"written_GiB": gib, "cache_limit_MiB": limit_mib, "write_s": round(wrote), "archived_s": round(archived),
                "MB_per_s": round(gib * 1073.74 / archived), "peak_rss_MiB": seen["rss"] >> 20,
                "peak_payload_MiB": seen["data"] >> 20, "peak_journal_and_index_MiB": seen["other"] >> 20,
                "create_and_list_ms_median": round(1000 * statistics.median(stats), 1),
                "create_and_list_ms_max": round(1000 * max(stats), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=int, default=4)
    parser.add_argument("--limit-mib", type=int, default=2048)
    parser.add_argument("--read-mib", type=int, default=1024)
    parser.add_argument("--part", choices=["1", "2", "both"], default="both")
    arguments = parser.parse_args()
    harness.DEADLINE = 3600
    result = {}
    if arguments.part != "2":
        result |= cold_reads(arguments.read_mib)
    if arguments.part != "1":
        result |= through_a_small_cache(arguments.gib, arguments.limit_mib)
    for key, value in result.items():
        print(f"  {key:<40} {value}")
    out = ROOT / "build" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "mount_archive.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
