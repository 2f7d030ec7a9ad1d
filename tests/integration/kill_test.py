#!/usr/bin/env python3
"""kill -9 under every kind of change, none of them synced: what the kernel said was done is there afterwards."""
import os
import random
import stat
import threading

from harness import World, main

ROUNDS = 100 if os.environ.get("QSFS_LONG") == "1" else 6
WORKERS = 3
NAMES = [f"n{i}" for i in range(12)]


def read_tree(root):
    """What one can see of a directory, by name."""
    tree = {}
    for name in os.listdir(root):
        path = root / name
        info = os.lstat(path)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            tree[name] = ("directory", mode)
        elif stat.S_ISLNK(info.st_mode):
            tree[name] = ("link", os.readlink(path))
        else:
            attributes = {key: os.getxattr(path, key) for key in os.listxattr(path)}
            tree[name] = ("file", mode, path.read_bytes(), attributes)
    return tree


class Worker(threading.Thread):
    """Changes a directory of its own, and knows what it must look like. Ends with the process that serves it."""

    def __init__(self, root, number, seed):
        super().__init__()
        self.root = root / f"w{number}"
        self.rng = random.Random(seed)
        self.root.mkdir(exist_ok=True)
        self.want = read_tree(self.root)
        self.after = self.want   # What it is if the change under way is done.
        self.loose = None        # A file whose content is being written: pages of it may be there.
        # A file that the last change wrote. When the mount dies within a close(), before the kernel has sent the pages,
        # the kernel drops them and the close succeeds (fuse_send_writepage forgets the error of a broken connection):
        # the first call that fails is the next one. No other change is answered without the filesystem.
        self.unsure = None
        self.done = 0

    def run(self):
        try:
            while True:
                self.step()
                self.want, self.unsure, self.loose = self.after, self.loose, None
                self.done += 1
        except OSError:
            return

    def step(self):
        name, other = self.rng.sample(NAMES, 2)
        path, target = self.root / name, self.root / other
        have = self.want.get(name)
        self.after = dict(self.want)
        if have is None:
            self.make(name, path)
        elif have[0] != "file" or self.rng.random() < 0.3:
            self.move_or_remove(name, other, path, target)
        else:
            self.change(name, path, have)

    def make(self, name, path):
        kind = self.rng.randrange(4)
        if kind == 0:
            self.after[name] = ("directory", 0o750)
            os.mkdir(path, 0o750)
        elif kind == 1:
            self.after[name] = ("link", f"to-{self.done}")
            os.symlink(f"to-{self.done}", path)
        else:
            self.write(name, path, ("file", 0o640, b"", {}))

    def write(self, name, path, file):
        content = self.rng.randbytes(self.rng.choice([1, 100, 4096, 30_000, 200_000]))
        self.after[name] = ("file", file[1], content, file[3])
        self.loose = name
        # No sync: the close hands it over.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, file[1])
        try:
            os.write(fd, content)
        finally:
            os.close(fd)

    def move_or_remove(self, name, other, path, target):
        have, there = self.want[name], self.want.get(other)
        if self.rng.random() < 0.5 and (there is None or (there[0] == "directory") == (have[0] == "directory")):
            del self.after[name]
            self.after[other] = have
            os.rename(path, target)
        else:
            del self.after[name]
            (os.rmdir if have[0] == "directory" else os.unlink)(path)

    def change(self, name, path, have):
        kind = self.rng.randrange(4)
        if kind == 0:
            self.after[name] = ("file", 0o600 + self.rng.randrange(64), *have[2:])
            os.chmod(path, self.after[name][1])
        elif kind == 1:
            value = self.rng.randbytes(self.rng.randrange(200))
            self.after[name] = (*have[:3], {**have[3], "user.a": value})
            os.setxattr(path, "user.a", value)
        elif kind == 2:
            size = self.rng.randrange(60_000)
            self.after[name] = (*have[:2], have[2][:size].ljust(size, b"\0"), have[3])
            os.truncate(path, size)
        else:
            self.write(name, path, have)

    def check(self):
        tree = read_tree(self.root)
        for allowed in (self.want, self.after):
            different = {name for name in {*tree, *allowed} if tree.get(name) != allowed.get(name)}
            if different <= {self.loose, self.unsure}:
                return
        shown = {name: [str(side.get(name))[:80] for side in (tree, self.want, self.after)] for name in different}
        raise AssertionError(f"after {self.done} changes: (is, was, would be) {shown}")


def kill_minus_nine_loses_no_change():
    rng = random.Random(7)
    config = "archive.segment_size = \"8 MiB\"\nvolume.rotate_seconds = 1"
    with World(data=3, meta=1, k=2, n=3, extra_config=config) as world:
        world.mount()
        changes = 0
        for _ in range(ROUNDS):
            workers = [Worker(world.mount_point, i, rng.random()) for i in range(WORKERS)]
            for worker in workers:
                worker.start()
            # The moment is random, the result must not be.
            threading.Event().wait(rng.uniform(0.1, 1.0))
            world.kill()
            for worker in workers:
                worker.join()
            world.mount()
            for worker in workers:
                worker.check()
                changes += worker.done
        assert changes > 0


if __name__ == "__main__":
    main([kill_minus_nine_loses_no_change])
