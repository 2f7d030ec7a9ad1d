#!/usr/bin/env python3
"""kill -9 at any moment: everything that was acknowledged is there after the next mount."""
import contextlib
import os
import random
import threading

from harness import BIN, World, main, run

ROUNDS = 200 if os.environ.get("QSFS_LONG") == "1" else 8


class Writer(threading.Thread):
    """Makes files, and remembers what the kernel said was done. Errors end it: the process was killed."""

    def __init__(self, root, number, seed):
        super().__init__()
        self.root = root / f"w{number}"
        self.rng = random.Random(seed)
        self.want = {}       # Name -> content that was acknowledged.
        self.in_doubt = set()  # Names of the operation that was under way.

    def run(self):
        try:
            self.root.mkdir(exist_ok=True)
            for i in range(1_000_000):
                self.step(i)
        except OSError:
            return

    def step(self, i):
        names = sorted(self.want)
        action = self.rng.random()
        if action < 0.6 or not names:
            name = f"f{self.rng.randrange(500)}-{i}"
            self.in_doubt = {name}
            content = self.rng.randbytes(self.rng.choice([10, 4096, 50_000]))
            fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                os.write(fd, content)
                # Acknowledged by the filesystem once the kernel has handed it over.
                os.fsync(fd)
            finally:
                os.close(fd)
            self.want[name] = content
        elif action < 0.8:
            name, other = self.rng.choice(names), f"r{i}"
            self.in_doubt = {name, other}
            os.rename(self.root / name, self.root / other)
            self.want[other] = self.want.pop(name)
        else:
            name = self.rng.choice(names)
            self.in_doubt = {name}
            os.unlink(self.root / name)
            del self.want[name]
        self.in_doubt = set()


def check(writer):
    have = set(os.listdir(writer.root))
    for name, content in writer.want.items():
        if name in writer.in_doubt:
            continue
        assert name in have, f"{name} was acknowledged and is gone"
        assert (writer.root / name).read_bytes() == content, f"{name} has other content"
    extra = have - set(writer.want) - writer.in_doubt
    assert not extra, f"never made, or removed before: {extra}"


def kill_minus_nine_loses_nothing_acknowledged():
    rng = random.Random(4)
    with World(data=3, meta=1, k=2, n=3, extra_config="archive.segment_size = \"8 MiB\"\nvolume.rotate_seconds = 1") as world:
        world.mount()
        for round_number in range(ROUNDS):
            writers = [Writer(world.mount_point, i, rng.random()) for i in range(3)]
            for writer in writers:
                for name in os.listdir(writer.root) if writer.root.exists() else []:
                    writer.want[name] = (writer.root / name).read_bytes()
                writer.start()
            # Let them work for a while; the moment is random, the result must not be.
            threading.Event().wait(rng.uniform(0.2, 1.2))
            world.kill()
            for writer in writers:
                writer.join()
            world.mount()
            for writer in writers:
                check(writer)


def kill_at_every_failpoint_of_the_archive():
    """The process dies by itself at named points; nothing is lost, and the archive catches up."""
    points = ["log.seal.after_switch", "archive.after_put", "archive.before_manifest", "archive.after_manifest",
              "archive.after_watermark", "archive.after_head", "cache.evict.before_remove", "cache.evict.after_remove"]
    with World(data=3, meta=1, k=2, n=3) as world:
        content = os.urandom(300_000)
        for i, point in enumerate(points):
            world.mount(environment={"QSFS_FAILPOINT": point})
            (world.mount_point / f"f{i}").write_bytes(content)
            os.sync()
            run(BIN / "qsfs", "sync", "--remote", world.mount_point, check=False)
            run(BIN / "qsfs", "evict", world.mount_point, check=False)
            world.detach()
            world.mount()
            world.sync_remote()
            world.evict()
            for j in range(i + 1):
                assert (world.mount_point / f"f{j}").read_bytes() == content, (point, j)
            world.terminate()


def killed_while_it_waits_for_its_own_mount():
    """A thread of the dead process that waits for the kernel's pages, and the kernel for it, would hang the mount for good."""
    def read_holes(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.lseek(file.fileno(), 0, os.SEEK_HOLE)

    def sync(path):
        run(BIN / "qsfs", "sync", path.parent, check=False)

    with World(data=3, meta=1, k=2, n=3) as world:
        for number, ask in enumerate((read_holes, sync)):
            world.mount(environment={"QSFS_FAILPOINT": "log.after_payload"})
            path = world.mount_point / f"f{number}"
            file = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.write(file, b"x" * 1000)
            # Its pages are the kernel's alone until something asks for them, and then the process dies.
            ask(path)
            world.detach()
            with contextlib.suppress(OSError):
                os.close(file)
            world.mount()
            (world.mount_point / "after").write_bytes(b"after")
            assert (world.mount_point / "after").read_bytes() == b"after"
            world.terminate()


if __name__ == "__main__":
    main([kill_minus_nine_loses_nothing_acknowledged, kill_at_every_failpoint_of_the_archive,
          killed_while_it_waits_for_its_own_mount])
