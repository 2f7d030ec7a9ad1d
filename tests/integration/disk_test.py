#!/usr/bin/env python3
"""The disk below the log: full, read-only, failing. On a filesystem of its own, in a loop device."""
import contextlib
import errno
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from harness import BIN, World, drop_caches, main, run, wait_until

IMAGE_MIB = 300


class SmallDisk:
    """An ext4 of 300 MiB in a file; its mount goes with the test, whatever happens."""

    def __init__(self, *options):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-disk-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.at = self.home / "disk"
        self.at.mkdir()
        self.image = self.home / "image"
        with open(self.image, "wb") as image:
            image.truncate(IMAGE_MIB << 20)
        run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal" if "nojournal" in options else "has_journal", self.image)
        if run("mount", "-o", "loop,errors=remount-ro", self.image, self.at, check=False).returncode != 0:
            self.remove()
            print("skipped: no loop devices here")
            sys.exit(77)

    def free(self):
        info = os.statvfs(self.at)
        return info.f_bavail * info.f_frsize

    def fill(self, leave=0):
        """Another user of the disk takes what is left of it."""
        with open(self.at / f"ballast{len(list(self.at.glob('ballast*')))}", "wb") as file:
            with contextlib.suppress(OSError):
                if self.free() > leave + (1 << 20):
                    os.posix_fallocate(file.fileno(), 0, (self.free() - leave) // (1 << 20) << 20)
            piece = b"x" * 4096
            with contextlib.suppress(OSError):
                while self.free() > leave:
                    os.write(file.fileno(), piece)
            os.fsync(file.fileno())

    def give_back(self):
        for file in self.at.glob("ballast*"):
            file.unlink()
        os.sync()

    def become_read_only(self):
        """As ext4 does it to itself after an error of the disk: writers have no say in it."""
        device = pathlib.Path(run("findmnt", "-no", "SOURCE", self.at).stdout.strip()).name
        pathlib.Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("test\n")

    def remount_writable(self):
        run("umount", self.at)
        # Another test's mount namespace may hold on to the old filesystem, and mount(8) takes the device that a file has:
        # the mount would be read-only at once.
        old, self.image = self.image, self.home / "again"
        run("cp", "--sparse=always", old, self.image)
        # The error was ours; the filesystem remembers it.
        done = run("e2fsck", "-fy", self.image, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        run("mount", "-o", "loop,errors=remount-ro", self.image, self.at)

    def remove(self):
        run("umount", "-l", self.at, check=False)
        subprocess.run(["rm", "-rf", str(self.home)], check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def small_world():
    # Nothing is archived in the middle of a test: what is on the disk stays there.
    return World(data=3, meta=1, k=2, n=3, extra_config="volume.rotate_seconds = 3600")


def write_file(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def expect_errno(wanted, work):
    try:
        work()
    except OSError as error:
        assert error.errno in wanted, f"{error}, not {[errno.errorcode[number] for number in wanted]}"
        return
    raise AssertionError(f"no error, wanted {[errno.errorcode[number] for number in wanted]}")


def verdict(world):
    return json.loads(run(BIN / "qsfs", "status", "--json", world.mount_point, check=False).stdout)["verdict"]


def sync_names(world):
    """Not syncfs: that tells, once and rightly, that pages of a file which is gone could not be written."""
    fd = os.open(world.mount_point, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def files_are(world, contents):
    drop_caches()
    for name, content in contents.items():
        assert (world.mount_point / name).read_bytes() == content, f"{name} differs"


def a_disk_that_fills_up_and_has_room_again_needs_no_remount():
    with SmallDisk() as disk, small_world() as world:
        world.mount(data_dir=disk.at / "local")
        kept = {f"f{i}": os.urandom(1 << 20) for i in range(20)}
        for name, content in kept.items():
            write_file(world.mount_point / name, content)
        disk.fill()
        expect_errno((errno.ENOSPC,), lambda: write_file(world.mount_point / "big", os.urandom(24 << 20)))
        with contextlib.suppress(FileNotFoundError):
            (world.mount_point / "big").unlink()
        files_are(world, kept)
        # Deleting, renaming and syncing work on a full disk.
        for i in range(5):
            (world.mount_point / f"f{i}").unlink()
            del kept[f"f{i}"]
        os.rename(world.mount_point / "f5", world.mount_point / "renamed")
        kept["renamed"] = kept.pop("f5")
        sync_names(world)
        disk.give_back()

        def writes_again():
            try:
                write_file(world.mount_point / "again", b"again" * 1000)
                return True
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                return False
        wait_until("writes go on", writes_again)
        kept["again"] = b"again" * 1000
        world.kill()
        world.mount()
        files_are(world, kept)
        assert not (world.mount_point / "f0").exists()


def a_full_disk_mounts_reads_and_deletes():
    with SmallDisk() as disk, small_world() as world:
        world.mount(data_dir=disk.at / "local")
        kept = {f"f{i}": os.urandom(100_000 * (i + 1)) for i in range(20)}
        for name, content in kept.items():
            write_file(world.mount_point / name, content)
        for stop in (world.terminate, world.kill):
            stop()
            disk.fill()
            for _ in range(3):
                # As often as one likes: a start on a full disk must not use up what lets it start.
                world.mount()
                files_are(world, kept)
                expect_errno((errno.ENOSPC,), lambda: write_file(world.mount_point / "big", os.urandom(24 << 20)))
                (world.mount_point / "big").unlink(missing_ok=True)
                name = sorted(kept)[0]
                (world.mount_point / name).unlink()
                del kept[name]
                sync_names(world)
                stop()
                disk.fill()
            disk.give_back()
            world.mount()
            files_are(world, kept)
            write_file(world.mount_point / "new", b"new")
            kept["new"] = b"new"


def a_disk_that_turns_read_only_stops_writes_not_reads():
    with SmallDisk() as disk, small_world() as world:
        world.mount(data_dir=disk.at / "local")
        kept = {f"f{i}": os.urandom(300_000) for i in range(10)}
        for name, content in kept.items():
            write_file(world.mount_point / name, content)
        disk.become_read_only()

        def a_write_fails():
            try:
                write_file(world.mount_point / "late", os.urandom(100_000))
            except OSError as error:
                assert error.errno in (errno.EROFS, errno.EIO), error
                return True
            return False
        wait_until("writes fail", a_write_fails)
        directories = iter(range(1_000_000))

        def making_a_directory_fails():
            try:
                os.mkdir(world.mount_point / f"dir{next(directories)}")
            except OSError as error:
                assert error.errno in (errno.EROFS, errno.EIO), error
                return True
            return False
        wait_until("names cannot be made any more", making_a_directory_fails)
        for name, content in kept.items():
            assert (world.mount_point / name).read_bytes() == content, name
        pid = world.pid
        assert pathlib.Path(f"/proc/{pid}").exists(), "qsfs-fs died"
        wait_until("the status says so", lambda: verdict(world) == "readonly")
        world.kill()
        disk.remount_writable()
        world.mount()
        files_are(world, kept)
        write_file(world.mount_point / "new", b"new")


if __name__ == "__main__":
    main([a_disk_that_fills_up_and_has_room_again_needs_no_remount, a_full_disk_mounts_reads_and_deletes,
          a_disk_that_turns_read_only_stops_writes_not_reads])
