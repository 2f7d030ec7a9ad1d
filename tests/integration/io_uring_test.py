#!/usr/bin/env python3
"""A mount whose requests come by io_uring. Run by with_io_uring.py, which has the kernel offer it."""
import errno
import os
import pathlib
import random
import subprocess
import tempfile
import threading

from harness import World, drop_caches, main, run, wait_until

MIB = 1 << 20


def transport(world):
    return world.status()["volume"]["transport"]


def in_parallel(count, work):
    """work(number) on so many threads at once; the first exception is raised."""
    failures = []

    def call(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def it_is_used_where_it_is_asked_for():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()
        assert transport(world) == "io_uring", transport(world)
        assert world.metric("qsfs_fuse_io_uring") == 1
        world.terminate()
        world.mount(transport="/dev/fuse")
        assert transport(world) == "/dev/fuse", transport(world)
        (world.mount_point / "file").write_bytes(b"there")


def content_of_all_sizes_is_what_was_written():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()
        rng = random.Random(7)
        sizes = [0, 1, 4095, 4096, 4097, 131072, MIB - 1, MIB, MIB + 1, 9 * MIB + 17]
        content = {f"f{size}": rng.randbytes(size) for size in sizes}
        for name, data in content.items():
            (world.mount_point / name).write_bytes(data)
        world.sync_remote()
        for again in (drop_caches, world.evict):
            again()
            for name, data in content.items():
                assert (world.mount_point / name).read_bytes() == data, name
        # Answers that are long though the question had arguments, and the longest of them.
        path = world.mount_point / "f1"
        os.setxattr(path, "user.long", rng.randbytes(60_000))
        assert len(os.getxattr(path, "user.long")) == 60_000
        os.symlink("x" * 4000, world.mount_point / "link")
        assert os.readlink(world.mount_point / "link") == "x" * 4000
        many = world.mount_point / "many"
        many.mkdir()
        names = {f"{'n' * 200}{number:05}" for number in range(3000)}
        for name in names:
            (many / name).touch()
        drop_caches()
        assert set(os.listdir(many)) == names
        fd = os.open(many, os.O_TMPFILE | os.O_RDWR)
        os.write(fd, b"nameless")
        assert os.pread(fd, 100, 0) == b"nameless"
        os.close(fd)


def many_at_once_and_more_than_there_are_threads():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()

        def holes(number):
            path = world.mount_point / f"holes{number}"
            for _ in range(5):
                fd = os.open(path, os.O_CREAT | os.O_RDWR)
                os.truncate(fd, 8 * MIB)
                os.pwrite(fd, b"x" * 4096, 4 * MIB)
                # Answered by another thread, once the kernel's dirty pages are written.
                assert os.lseek(fd, 0, os.SEEK_DATA) == 4 * MIB
                assert os.lseek(fd, 4 * MIB, os.SEEK_HOLE) == 4 * MIB + 4096
                os.close(fd)
                path.unlink()

        in_parallel(100, holes)

        def synced(number):
            path = world.mount_point / f"synced{number}"
            with open(path, "wb") as file:
                for _ in range(20):
                    file.write(os.urandom(5000))
                    file.flush()
                    os.fsync(file.fileno())
            assert path.stat().st_size == 100_000

        in_parallel(40, synced)
        names = os.listdir(world.mount_point)
        assert sorted(names) == sorted(f"synced{number}" for number in range(40)), names


def a_real_tree_is_copied_and_compared():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()
        source = "/usr/include/linux"
        in_parallel(3, lambda number: run("cp", "-a", source, world.mount_point / f"copy{number}"))
        world.sync_remote()
        world.evict()
        in_parallel(3, lambda number: run("diff", "-r", "--no-dereference", source, world.mount_point / f"copy{number}"))
        in_parallel(3, lambda number: run("rm", "-r", world.mount_point / f"copy{number}"))
        assert os.listdir(world.mount_point) == []


def space_of_unlinked_files_comes_back():
    with World(data=3, meta=1, k=2, n=3) as world:
        world.mount()
        for number in range(2000):
            (world.mount_point / f"f{number}").write_bytes(b"x" * 100)
        for number in range(2000):
            (world.mount_point / f"f{number}").unlink()
        # The kernel's FORGETs come by the other way.
        wait_until("the inodes are gone", lambda: world.status()["volume"]["inodes"] == 1)


def it_ends_under_load_in_every_way():
    def user_of(world, stop):
        """Works in the mount until that is gone."""
        try:
            while not stop.is_set():
                with tempfile.NamedTemporaryFile(dir=world.mount_point) as file:
                    file.write(b"x" * 10_000)
                    os.fsync(file.fileno())
        except OSError as error:
            ended = (errno.ENOTCONN, errno.ENODEV, errno.ECONNABORTED, errno.ECANCELED, errno.EIO, errno.ENOENT)
            assert error.errno in ended, error

    def aborted(world):
        connection = os.minor(os.stat(world.mount_point).st_dev)
        with tempfile.TemporaryDirectory() as control:
            run("mount", "-t", "fusectl", "none", control)
            try:
                (pathlib.Path(control) / str(connection) / "abort").write_text("1")
            finally:
                run("umount", control)
        wait_until("the process has ended", lambda: not pathlib.Path(f"/proc/{world.pid}").exists())
        world.detach()

    def unmounted_while_busy(world):
        with subprocess.Popen(["sleep", "1000"], cwd=world.mount_point) as busy:
            world.terminate()
            busy.kill()

    with World(data=3, meta=1, k=2, n=3) as world:
        kept = os.urandom(3 * MIB)
        for end in (world.kill, lambda: aborted(world), lambda: unmounted_while_busy(world), world.terminate):
            world.mount()
            assert transport(world) == "io_uring"
            (world.mount_point / "kept").write_bytes(kept)
            stop = threading.Event()
            users = [threading.Thread(target=user_of, args=(world, stop)) for _ in range(6)]
            for user in users:
                user.start()
            end()
            stop.set()
            for user in users:
                user.join()
            world.mount()
            assert (world.mount_point / "kept").read_bytes() == kept
            world.terminate()


main([
    it_is_used_where_it_is_asked_for,
    content_of_all_sizes_is_what_was_written,
    many_at_once_and_more_than_there_are_threads,
    a_real_tree_is_copied_and_compared,
    space_of_unlinked_files_comes_back,
    it_ends_under_load_in_every_way,
])
