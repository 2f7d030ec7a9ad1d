#!/usr/bin/env python3
"""The main job of QSFS, end to end, on real files with real processes.

Starts six data and three meta 0-DB servers, mounts a volume, copies a real tree in, waits until it is archived,
drops the local data, kills as many servers as the redundancy allows (two of the data, one of the meta), verifies every
file, loses the local directory, recovers on an empty one, and verifies again.

Exit status 0 when every byte came back, 1 otherwise. Everything that was started is ended again, unless --keep.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build" / "bin"
DATA_SERVERS, META_SERVERS, K, N = 6, 3, 4, 6
FILES_MIN, BYTES_MIN = 5000, 300 << 20
BYTES_MAX = 700 << 20
SOURCES = ["/usr/share", "/usr/include", "/usr/lib/python3", "/usr/lib/x86_64-linux-gnu"]


class Failure(Exception):
    """Something that the demo promises is not true."""


class Steps:
    """Prints each step with its time, and a table at the end."""

    def __init__(self):
        self.rows = []

    def __call__(self, title, work):
        print(f"  {title} … ", end="", flush=True)
        start = time.monotonic()
        note = work() or ""
        seconds = time.monotonic() - start
        print(f"{seconds:.1f} s  {note}", flush=True)
        self.rows.append((title, seconds, note))

    def table(self):
        width = max(len(title) for title, _, _ in self.rows)
        print()
        for title, seconds, note in self.rows:
            print(f"  {title:<{width}}  {seconds:7.1f} s  {note}")


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], text=True, capture_output=True, **options)
    if done.returncode != 0:
        raise Failure(f"{' '.join(map(str, words))}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


class Server:
    """A qsfs-zdb process on a port of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BIN / "qsfs-zdb", "--data", self.directory, "--listen", self.address, "--log-level", "warn"],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        if not line.startswith("listening on "):
            raise Failure(f"qsfs-zdb did not start: {line!r}")
        self.address = line.removeprefix("listening on ")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def walk(root):
    """Every entry below root, parents first, as (relative path, lstat result)."""
    yield ".", os.lstat(root)
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            yield os.path.relpath(path, root), os.lstat(path)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def describe(root):
    """What must come back: type, mode, owner, time, link structure, content."""
    described, inodes = {}, {}
    for name, info in walk(root):
        path = os.path.join(root, name)
        kind = stat.S_IFMT(info.st_mode)
        entry = [stat.filemode(info.st_mode), info.st_uid, info.st_gid]
        if kind == stat.S_IFLNK:
            entry += [os.readlink(path)]
        else:
            entry += [info.st_mtime_ns]
        if kind == stat.S_IFREG:
            # Hard links: the first name of the inode stands for all.
            first = inodes.setdefault(info.st_ino, name)
            entry += [info.st_size, info.st_nlink, first, digest(path) if first == name else ""]
            entry += [sorted((key, os.getxattr(path, key)) for key in os.listxattr(path))]
        described[name] = entry
    return described


def differences(want, have):
    for name in want.keys() | have.keys():
        if want.get(name) != have.get(name):
            yield f"{name}: {want.get(name)} became {have.get(name)}"


def choose_sources(target):
    """Copies whole folders until there is enough; returns (files, bytes)."""
    files = size = 0
    for source in SOURCES:
        for child in sorted(pathlib.Path(source).iterdir()) if os.path.isdir(source) else []:
            if size > BYTES_MIN and files > FILES_MIN:
                return files, size
            below = [info for _, info in walk(child)] if child.is_dir() and not child.is_symlink() else [os.lstat(child)]
            child_size = sum(info.st_size for info in below if stat.S_ISREG(info.st_mode))
            if size + child_size > BYTES_MAX:
                continue
            destination = target / pathlib.Path(source).relative_to("/")
            destination.mkdir(parents=True, exist_ok=True)
            run("cp", "-a", child, destination)
            files += len(below)
            size += child_size
    if files < FILES_MIN or size < BYTES_MIN:
        raise Failure(f"this machine has too little to copy: {files} files, {size >> 20} MiB")
    return files, size


class Demo:
    def __init__(self, keep):
        self.keep = keep
        self.steps = Steps()
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-demo-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.source = self.home / "source"
        self.mount = self.home / "mnt"
        self.config = self.home / "volume.toml"
        self.data_dir = self.home / "local"
        self.servers = []
        self.pid = None

    def start_servers(self):
        for i in range(DATA_SERVERS + META_SERVERS):
            kind = "data" if i < DATA_SERVERS else "meta"
            self.servers.append(Server(self.home / f"zdb-{kind}-{i}"))
        return f"{DATA_SERVERS} data, {META_SERVERS} meta"

    def init(self):
        words = [BIN / "qsfs", "init", "--config", self.config, "--data-dir", self.data_dir, "--k", K, "--n", N]
        for server in self.servers[:DATA_SERVERS]:
            words += ["--group", server.address]
        words += ["--meta", ",".join(server.address for server in self.servers[DATA_SERVERS:])]
        run(*words)
        return f"any {K} of {N} shards restore a stripe"

    def start_mount(self, data_dir, *flags):
        run(BIN / "qsfs-fs", "--config", self.config, "--data-dir", data_dir, *flags, self.mount)
        self.pid = self.status()["pid"]

    def status(self):
        done = subprocess.run([BIN / "qsfs", "status", "--json", self.mount], text=True, capture_output=True)
        if done.returncode not in (0, 3):
            raise Failure(f"qsfs status: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def copy_in(self):
        run("cp", "-a", self.source, self.mount)
        run("sync", "-f", self.mount)

    def make_source(self):
        self.source.mkdir()
        files, size = choose_sources(self.source)
        # What package trees lack: hard links, an attribute, a sparse file, odd names, special files, old times.
        extra = self.source / "extra"
        extra.mkdir()
        (extra / "one").write_bytes(b"linked" * 1000)
        os.link(extra / "one", extra / "two")
        os.setxattr(extra / "one", "user.qsfs", b"kept")
        with open(extra / "sparse", "wb") as file:
            file.seek(1 << 30)
            file.write(b"end")
        os.mkfifo(extra / "fifo")
        (extra / ("n" * 255)).write_text("long name")
        (extra / "new\nline").write_text("odd name")
        os.symlink("nowhere", extra / "dangling")
        os.utime(extra / "two", ns=(1, -1_000_000_001))
        self.expected = describe(self.source)
        return f"{files} files, {size >> 20} MiB"

    def verify(self):
        have = describe(self.mount / "source")
        wrong = list(differences(self.expected, have))
        if wrong:
            raise Failure(f"{len(wrong)} entries differ:\n    " + "\n    ".join(wrong[:10]))
        return f"{len(have)} entries identical"

    def sync_remote(self):
        run(BIN / "qsfs", "sync", "--remote", self.mount)
        archive = self.status()["archive"]
        if archive["segments_queued"] or archive["behind_bytes"]:
            raise Failure(f"still behind after sync --remote: {archive}")
        return f"{archive['segments_archived']} segments"

    def evict(self):
        run(BIN / "qsfs", "evict", self.mount)
        used = self.status()["cache"]["used_bytes"]
        if used > 1 << 20:
            raise Failure(f"{used} bytes are still local after evict")
        return f"{used} bytes of payload left on this disk"

    def kill_servers(self):
        for index in (1, 4, DATA_SERVERS):
            self.servers[index].kill()
        return "data 1 and 4, meta 0: SIGKILL"

    def drop_caches(self):
        # What the kernel kept would answer in the volume's place.
        run("sync", "-f", self.mount)
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")

    def lose_machine(self):
        os.kill(self.pid, signal.SIGKILL)
        run("umount", "-l", self.mount)
        shutil.rmtree(self.data_dir)
        return "qsfs-fs: SIGKILL; data directory deleted"

    def recover(self):
        self.data_dir = self.home / "local-2"
        self.start_mount(self.data_dir, "--recover")

    def revive_servers(self):
        # With two of six gone, new data waits on this disk: five shards are wanted before it counts as safe.
        for index in (1, 4, DATA_SERVERS):
            self.servers[index].start()
        return "data 1 and 4, meta 0"

    def still_writes(self):
        (self.mount / "after").write_text("written after the recovery\n")
        run(BIN / "qsfs", "sync", "--remote", self.mount)
        run(BIN / "qsfs", "umount", self.mount)
        self.start_mount(self.data_dir)
        if (self.mount / "after").read_text() != "written after the recovery\n":
            raise Failure("what was written after the recovery is gone")
        return "written, archived, unmounted, mounted, read"

    def play(self):
        self.mount.mkdir()
        print(f"demo in {self.home}")
        steps = self.steps
        steps("start 0-DB servers", self.start_servers)
        steps("write a configuration (qsfs init)", self.init)
        steps("collect a real tree", self.make_source)
        steps("mount (qsfs-fs)", lambda: self.start_mount(self.data_dir))
        steps("copy the tree in", self.copy_in)
        steps("verify", self.verify)
        steps("archive (qsfs sync --remote)", self.sync_remote)
        steps("drop local data (qsfs evict)", self.evict)
        steps("lose two data servers and a meta server", self.kill_servers)
        steps("drop the kernel's caches", self.drop_caches)
        steps("verify from the backends", self.verify)
        steps("lose this machine", self.lose_machine)
        steps("recover on an empty directory", self.recover)
        steps("verify the recovered volume", self.verify)
        steps("start the servers again", self.revive_servers)
        steps("go on working with it", self.still_writes)

    def clean(self):
        if os.path.ismount(self.mount):
            subprocess.run([BIN / "qsfs", "umount", self.mount], capture_output=True)
        if os.path.ismount(self.mount):
            if self.pid:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            subprocess.run(["umount", "-l", self.mount], capture_output=True)
        for server in self.servers:
            server.end()
        shutil.rmtree(self.home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the volume mounted and the servers running")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("dev demo: needs root (it drops the kernel's caches and mounts)")
    demo = Demo(arguments.keep)
    status = 0
    try:
        demo.play()
        demo.steps.table()
        print("\n  every byte came back")
    except Failure as failure:
        print(f"FAILED\n{failure}")
        log = demo.data_dir / "qsfs-fs.log"
        if log.exists():
            print("\n".join(log.read_text().splitlines()[-20:]))
        status = 1
    except KeyboardInterrupt:
        status = 130
    finally:
        if arguments.keep and status == 0:
            print(f"\n  kept: mounted at {demo.mount}, configuration {demo.config}\n"
                  f"  end it with: {BIN}/qsfs umount {demo.mount}; "
                  f"kill {' '.join(str(s.process.pid) for s in demo.servers if s.process.poll() is None)}; rm -r {demo.home}")
        else:
            demo.clean()
    sys.exit(status)


if __name__ == "__main__":
    main()
