#!/usr/bin/env python3
"""QSFS beside libfuse's pass-through and the bare disk: the same work in turn, medians and ratios.

  mount.py [--runs N] [--rows NAME,…] [--targets NAME,…] [--quick] [--json FILE]

Targets:
  qsfs         a volume whose segments are not sealed meanwhile: the local half alone; requests through /dev/fuse
  io_uring     the same, with requests by io_uring: switches that on for the machine while it mounts
  archiving    a volume with the default configuration and embedded backends on the same disk, which archives as it goes
  passthrough  passthrough_ll of libfuse's examples, built here, over a directory of the same disk: multi-threaded,
               writeback, cache=always
  disk         that disk
Each run makes each target anew. Cold is after dropping the caches of the kernel.
"""
import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
os.environ.setdefault("QSFS_BIN", str(ROOT / "build" / "release" / "bin"))
import harness  # noqa: E402
from harness import BIN, drop_caches, run, wait_until  # noqa: E402

EXAMPLE = pathlib.Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
# passthrough_ll keeps every inode open that the kernel knows.
FILES_MAX = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 2000
WORK = BIN / "fs_workload"
IO_URING_SWITCH = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


class Row:
    def __init__(self, name, words, cold=False, unit="ops", label=None):
        self.name, self.words, self.cold, self.unit, self.label = name, words, cold, unit, label or name


def rows(quick):
    mib, files, operations = (128, 4000, 4000) if quick else (512, min(20000, FILES_MAX), 10000)
    size = ["--mib", mib]
    small = ["--files", files // 2]
    return [
        Row("seq write", ["seq_write", *size], unit="bytes"),
        Row("seq read cached", ["seq_read", *size], unit="bytes"),
        Row("seq read cold", ["seq_read", *size], cold=True, unit="bytes"),
        Row("rand read 4k cold, 1 job", ["rand_read", *size, "--operations", operations], cold=True),
        Row("rand read 4k cold, 4 jobs", ["rand_read", *size, "--jobs", 4, "--operations", operations], cold=True),
        Row("rand write 4k, 1 job", ["rand_write", *size, "--operations", 5 * operations], cold=True),
        Row("rand write 4k, 4 jobs", ["rand_write", *size, "--jobs", 4, "--operations", 5 * operations], cold=True),
        Row("seq read cold, overwritten", ["seq_read", *size], cold=True, unit="bytes"),
        Row("rand write 4k + fsync", ["rand_write_fsync", *size, "--operations", operations // 4]),
        Row("append 4k + fsync", ["append_fsync", "--operations", operations // 4]),
        Row("create empty", ["create", "--files", files]),
        Row("stat cold", ["stat", "--files", files], cold=True),
        Row("readdir + stat cold", ["readdir", "--files", files], cold=True),
        Row("unlink empty", ["unlink", "--files", files]),
        Row("small files write", ["small_write", *small]),
        Row("small files read cold", ["small_read", *small], cold=True),
        Row("small files delete", ["small_delete", *small]),
        Row("untar", None, cold=True),
        Row("grep -r cold", None, cold=True),
    ]


def source_tree(quick):
    """A tar of headers, once per machine."""
    out = pathlib.Path(tempfile.gettempdir()) / f"qsfs-bench-tree-{'quick' if quick else 'full'}.tar"
    if not out.exists():
        folder = next(path for path in ("boost/asio" if quick else "boost", "linux") if pathlib.Path("/usr/include", path).exists())
        partial = out.with_suffix(f".{os.getpid()}")
        run("tar", "-cf", partial, "-C", "/usr/include", folder)
        partial.rename(out)
    return out


def measure(row, directory, tree):
    if row.cold:
        os.sync()
        drop_caches()
    if row.words:
        done = json.loads(run(WORK, row.words[0], directory, *row.words[1:]).stdout)
        return done[row.unit] / done["seconds"]
    start = time.monotonic()
    if row.name == "untar":
        run("tar", "-xf", tree, "-C", directory)
    else:
        run("grep", "-r", "-c", "nothing says this", directory, check=False)
    return 1 / (time.monotonic() - start)


@contextlib.contextmanager
def scratch():
    home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def disk():
    with scratch() as home:
        yield home


@contextlib.contextmanager
def passthrough(program):
    with scratch() as home:
        (home / "source").mkdir()
        (home / "mnt").mkdir()
        process = subprocess.Popen([program, "-f", "-o", f"source={home / 'source'},writeback,cache=always,allow_other",
                                    home / "mnt"], stderr=subprocess.DEVNULL)
        try:
            wait_until("passthrough_ll has mounted", lambda: os.path.ismount(home / "mnt"))
            yield home / "mnt"
        finally:
            run("umount", "-l", home / "mnt", check=False)
            process.wait(30)


@contextlib.contextmanager
def offered_io_uring():
    before = IO_URING_SWITCH.read_text()
    IO_URING_SWITCH.write_text("Y")
    try:
        yield
    finally:
        IO_URING_SWITCH.write_text(before)


@contextlib.contextmanager
def qsfs(archiving, io_uring=False):
    with scratch() as home:
        (home / "mnt").mkdir()
        config = home / "volume.toml"
        run(BIN / "qsfs", "init", "--config", config, "--data-dir", home / "local", "--local", home / "backends")
        if not archiving:
            text = config.read_text().replace("rotate_seconds = 60\n", "rotate_seconds = 604800\n")
            # A segment that is sealed all the same, because its journal is full, hardly moves.
            text = text.replace('bandwidth = "0"', 'bandwidth = "1 MiB"')
            config.write_text(text.replace("[archive]\n", '[archive]\nsegment_size = "1 GiB"\n'))
        with offered_io_uring() if io_uring else contextlib.nullcontext():
            run(BIN / "qsfs-fs", "--config", config, *(["--io-uring"] if io_uring else []), home / "mnt")
        try:
            yield home / "mnt"
        finally:
            run(BIN / "qsfs", "umount", home / "mnt", check=False)
            run("umount", "-l", home / "mnt", check=False)


def build_passthrough(home):
    out = home / "passthrough_ll"
    flags = run("pkg-config", "--cflags", "--libs", "fuse3").stdout.split()
    run("gcc", "-O2", "-o", out, EXAMPLE, *flags)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", default="", help="comma-separated beginnings of row names")
    parser.add_argument("--targets", default="qsfs,io_uring,archiving,passthrough,disk")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    harness.DEADLINE = 900
    wanted = [row for row in rows(arguments.quick)
              if not arguments.rows or any(row.name.startswith(part) for part in arguments.rows.split(","))]
    names = arguments.targets.split(",")
    tree = source_tree(arguments.quick)
    rates = {name: {row.name: [] for row in wanted} for name in names}
    with scratch() as home:
        program = build_passthrough(home) if "passthrough" in names else None
        makers = {"qsfs": lambda: qsfs(False), "io_uring": lambda: qsfs(False, io_uring=True), "archiving": lambda: qsfs(True),
                  "passthrough": lambda: passthrough(program), "disk": disk}
        for turn in range(arguments.runs):
            for name in names:
                with makers[name]() as directory:
                    for row in wanted:
                        rates[name][row.name].append(measure(row, directory, tree))
            print(f"run {turn + 1} of {arguments.runs} done", file=sys.stderr)
    medians = {name: {row: statistics.median(values) for row, values in of.items()} for name, of in rates.items()}
    print(f"{'':<28}" + "".join(f"{name:>13}" for name in names) + "   ratio to passthrough, disk (qsfs; io_uring)")
    for row in wanted:
        cells = []
        for name in names:
            rate = medians[name][row.name]
            cells.append(f"{rate / 2**20:>8.0f} MiB/s" if row.unit == "bytes" else f"{1 / rate:>11.2f} s" if row.words is None
                         else f"{rate:>11.0f}/s")
        ratios = "  ".join(f"{medians[of][row.name] / medians[to][row.name]:6.2f}" for of in ("qsfs", "io_uring")
                           for to in ("passthrough", "disk") if to in names and of in names)
        print(f"{row.name:<28}" + "".join(f"{cell:>13}" for cell in cells) + "   " + ratios)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": run("uname", "-a").stdout.strip(), "cores": os.cpu_count(),
                                              "rates": rates, "medians": medians}, indent=1))


if __name__ == "__main__":
    main()
