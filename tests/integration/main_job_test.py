#!/usr/bin/env python3
"""The main job on a small scale: archive, lose servers, lose the disk, read everything back."""
import hashlib
import os
import random
import statistics
import stat

from harness import BIN, World, drop_caches, main, run


def make_tree(root, seed=1, files=300):
    """A tree with what real ones have: sizes from 0 to a few MiB, links, modes, times, attributes."""
    rng = random.Random(seed)
    root.mkdir()
    folders = [root]
    for i in range(files // 20):
        folder = rng.choice(folders) / f"d{i}"
        folder.mkdir()
        folders.append(folder)
    for i in range(files):
        path = rng.choice(folders) / f"f{i}"
        size = rng.choice([0, 1, 100, 4095, 4096, 4097, 70_000, rng.randrange(1 << 20), 3 << 20])
        # Half of it compresses.
        path.write_bytes(rng.randbytes(size) if i % 2 else (b"text %d " % i * (size // 6 + 1))[:size])
        path.chmod(rng.choice([0o600, 0o644, 0o755, 0o4755, 0o000]))
        os.utime(path, ns=(0, rng.randrange(-(10 ** 18), 3 * 10 ** 18)))
    os.symlink("nowhere/" + "x" * 200, root / "dangling")
    os.link(root / "dangling", root / "dangling2", follow_symlinks=False)
    (root / "linked").write_text("two names")
    os.link(root / "linked", root / "linked2")
    os.setxattr(root / "linked", "user.note", b"kept\0binary")
    os.mkfifo(root / "fifo")
    with open(root / "sparse", "wb") as file:
        file.seek(5 << 30)
        file.write(b"end")
    return root


def describe(root):
    described = {}
    for folder, folders, names in os.walk(root):
        for name in sorted(folders + names) + ["."]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            entry = [info.st_mode, info.st_uid, info.st_gid, info.st_size if not stat.S_ISDIR(info.st_mode) else 0]
            if stat.S_ISLNK(info.st_mode):
                entry.append(os.readlink(path))
            else:
                entry.append(info.st_mtime_ns)
            if not stat.S_ISDIR(info.st_mode):
                entry.append(info.st_nlink)
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    if info.st_size < 1 << 30:
                        entry.append(hashlib.sha256(file.read()).hexdigest())
                    else:
                        file.seek(info.st_size - 3)
                        entry.append(file.read())
                entry.append([(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))])
            described[os.path.relpath(path, root)] = entry
    return described


def copy_tree(world):
    source = make_tree(world.home / "source")
    run("cp", "-a", source, world.mount_point)
    want = describe(source)
    assert describe(world.mount_point / "source") == want
    return want


def everything_comes_back_from_the_backends():
    with World() as world:
        world.mount()
        want = copy_tree(world)
        world.sync_remote()
        world.evict()
        assert world.status()["cache"]["used_bytes"] == 0
        for server in (world.data[0], world.data[3], world.meta[1]):
            server.kill()
        assert describe(world.mount_point / "source") == want
        # The machine is lost as well.
        world.kill()
        world.mount("--recover", data_dir=world.home / "second")
        assert describe(world.mount_point / "source") == want
        # What comes now goes to the four data servers that are left; degraded, because five are needed to be sure.
        (world.mount_point / "later").write_text("still writable")
        world.terminate()
        world.mount()
        assert (world.mount_point / "later").read_text() == "still writable"


def sequential_namespaces_and_unix_sockets_work_too():
    with World(data=4, meta=1, k=2, n=4) as world:
        text = world.config.read_text()
        for i, server in enumerate(world.data[:2]):
            server.end()
            server.listen = server.address
            server.process = None
            server.flags = ("--mode", "seq")
            # An empty directory, so that its namespace is made anew in the other mode.
            server.directory = world.home / f"seq{i}"
            server.start()
        world.config.write_text(text)
        world.mount()
        want = copy_tree(world)
        world.sync_remote()
        world.evict()
        world.data[1].kill()
        world.data[2].kill()
        assert describe(world.mount_point / "source") == want
        world.kill()
        world.mount(data_dir=world.home / "second")
        assert describe(world.mount_point / "source") == want


def second_mount_of_a_data_directory_is_refused():
    with World(data=2, meta=1, k=1, n=2) as world:
        world.mount()
        other = world.home / "other"
        other.mkdir()
        done = run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", world.data_dir, other, check=False)
        assert done.returncode == 1, done
        errors = [line for line in done.stderr.splitlines() if ": warning: " not in line]
        assert len(errors) == 1 and "already mounted" in errors[0], done.stderr
        assert not os.path.ismount(other)


def bad_input_is_refused_before_anything_is_touched():
    with World(data=2, meta=1, k=1, n=2) as world:
        good = world.config.read_text()
        for change in (("minimal_shards = 1", "minimal_shards = 3"), ("minimal_shards", "minimal_shrads")):
            world.config.write_text(good.replace(*change))
            done = run(BIN / "qsfs-fs", "--config", world.config, world.mount_point, check=False)
            assert done.returncode == 2, done
            assert "shards" in done.stderr, done.stderr
            assert not world.data_dir.exists()
        world.config.write_text(good)
        missing = run(BIN / "qsfs-fs", "--config", world.config, world.home / "missing", check=False)
        assert missing.returncode != 0 and "missing" in missing.stderr
        nothing = run(BIN / "qsfs-fs", "--config", world.config, "--recover", world.mount_point, check=False)
        assert nothing.returncode == 2 and "no volume" in nothing.stderr, nothing


def empty_directory_without_backends_is_refused():
    """A fresh directory and dead meta backends: this may be a volume that only they know of."""
    with World(data=2, meta=3, k=1, n=2) as world:
        for server in world.meta:
            server.kill()
        done = run(BIN / "qsfs-fs", "--config", world.config, world.mount_point, check=False)
        assert done.returncode == 1 and "cannot tell" in done.stderr, done
        for server in world.meta:
            server.start()
        world.mount()


def mount_works_at_local_speed_while_all_backends_are_gone():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()
        (world.mount_point / "before").write_bytes(b"b" * 100_000)
        world.terminate()
        for server in world.servers:
            server.kill()
        world.mount()
        want = copy_tree(world)
        assert (world.mount_point / "before").read_bytes() == b"b" * 100_000
        os.sync()
        assert world.status()["verdict"] == "unsafe"
        for server in world.servers:
            server.start()
        world.sync_remote()
        world.evict()
        assert describe(world.mount_point / "source") == want


def random_read_fetches_one_stripe():
    with World() as world:
        world.mount()
        size = 64 << 20
        (world.mount_point / "big").write_bytes(os.urandom(size))
        world.sync_remote()
        world.evict()
        rng = random.Random(7)
        with open(world.mount_point / "big", "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            counts = []
            for _ in range(10):
                before = world.metric("qsfs_shards_read_total")
                file.seek(rng.randrange(size // 4096) * 4096)
                assert len(file.read(4096)) == 4096
                counts.append(world.metric("qsfs_shards_read_total") - before)
        # Where a backend takes long, another shard is asked for as well; that is not the rule.
        assert statistics.median(counts) <= 4 and max(counts) <= 6, f"{counts} shards for 4 KiB each"
        drop_caches()


if __name__ == "__main__":
    main([everything_comes_back_from_the_backends, sequential_namespaces_and_unix_sockets_work_too,
          second_mount_of_a_data_directory_is_refused, bad_input_is_refused_before_anything_is_touched,
          empty_directory_without_backends_is_refused, mount_works_at_local_speed_while_all_backends_are_gone,
          random_read_fetches_one_stripe])
