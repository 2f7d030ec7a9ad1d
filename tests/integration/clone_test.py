#!/usr/bin/env python3
"""A machine is cloned: two copies of one data directory, both mounted (L15)."""
import contextlib
import json
import shutil
import subprocess

from harness import BIN, World, main, run
from rebuild_test import QUIET, fill, verify


class Other:
    """The same volume, mounted a second time from another data directory."""

    def __init__(self, world, data_dir):
        self.mount_point = world.home / f"mnt-{data_dir.name}"
        self.mount_point.mkdir()
        run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", data_dir, self.mount_point)

    def status(self):
        return json.loads(run(BIN / "qsfs", "status", "--json", self.mount_point, check=False).stdout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run(BIN / "qsfs", "umount", self.mount_point, check=False)
        run("umount", "-l", self.mount_point, check=False)


def is_fenced(volume, name):
    """It may write until it wants to archive, which is at once where something was left; then it only reads."""
    written = False
    with contextlib.suppress(OSError):
        (volume.mount_point / name).write_text("written too late")
        written = True
        done = run(BIN / "qsfs", "sync", "--remote", volume.mount_point, check=False)
        assert done.returncode != 0, done.stdout + done.stderr
    status = volume.status()
    assert status["verdict"] == "readonly", status
    assert any("copy" in reason for reason in status["reasons"]), status["reasons"]
    told = run(BIN / "qsfs", "status", volume.mount_point, check=False).stdout
    assert status["archive"]["fenced"] and "Next: copy what was written here" in told, told
    # What it has stays readable.
    assert not written or (volume.mount_point / name).read_text() == "written too late"


def a_copy_made_while_mounted_takes_over():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 4)
        epoch = world.status()["volume"]["epoch"]
        clone = world.home / "clone"
        subprocess.run(["cp", "-a", world.data_dir, clone], check=True)
        with Other(world, clone) as other:
            digests |= fill(other, 3, seed=2)
            assert other.status()["volume"]["epoch"] > epoch
            # The earlier one finds the claim.
            is_fenced(world, "lost")
            digests |= fill(other, 2, seed=3)
            verify(other, digests)
        world.terminate()
        # For good: the directory that has lost the volume does not take it back.
        world.mount()
        is_fenced(world, "lost again")
        world.terminate()
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)


def a_copy_made_while_unmounted_does_not_go_on_beside():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 4)
        world.terminate()
        clone = world.home / "clone"
        subprocess.run(["cp", "-a", world.data_dir, clone], check=True)
        world.mount()
        with Other(world, clone) as other:
            # Whoever archives first has claimed the volume; the other is of an older state.
            digests |= fill(world, 3, seed=2)
            is_fenced(other, "lost")
            digests |= fill(world, 2, seed=3)
            verify(world, digests)
        world.terminate()
        # Started later, from what it was then: it must not archive anything either.
        with Other(world, clone.rename(world.home / "older")) as other:
            is_fenced(other, "lost again")
        shutil.rmtree(world.data_dir)
        world.mount("--recover")
        verify(world, digests)


def a_copy_of_an_older_state_is_refused_before_anything_is_stored():
    """Started when the first is gone: nobody else claims the volume, and still it may not go on."""
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 2)
        clone = world.home / "clone"
        subprocess.run(["cp", "-a", world.data_dir, clone], check=True)
        # In the same life, so that the copy remembers the very claim that this is archived under.
        digests |= fill(world, 2, seed=2)
        world.terminate()
        shutil.rmtree(world.data_dir)
        with Other(world, clone) as other:
            is_fenced(other, "lost")
        world.mount("--recover")
        verify(world, digests)


if __name__ == "__main__":
    main([a_copy_made_while_mounted_takes_over, a_copy_made_while_unmounted_does_not_go_on_beside,
          a_copy_of_an_older_state_is_refused_before_anything_is_stored])
