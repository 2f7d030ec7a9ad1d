#!/usr/bin/env python3
"""The data key changes under a mounted volume: nothing becomes unreadable, at any step, and the old key can go."""
import json
import re
import secrets
import shutil
import time

from harness import BIN, World, main, run, wait_until
from rebuild_test import QUIET, fill, rebuild, verify, wipe


def key_of(world):
    return re.search(r'^\[encryption\]\n(?:.*\n)*?key = "([0-9a-f]{64})"', world.config.read_text(), re.M).group(1)


def set_keys(world, key, *old_keys):
    world.edit_config(f'encryption.key = "{key}"')
    text = re.sub(r"(?m)^old_keys = .*\n", "", world.config.read_text())
    if old_keys:
        listed = ", ".join(f'"{old}"' for old in old_keys)
        text = text.replace("[encryption]\n", f"[encryption]\nold_keys = [{listed}]\n", 1)
    world.config.write_text(text)
    world.config.chmod(0o600)


def reload_is_refused(world, *words):
    """Says why, and never a key."""
    done = run(BIN / "qsfs", "reload", world.mount_point, check=False)
    told = done.stdout + done.stderr
    assert done.returncode != 0, told
    for word in words:
        assert word in told, told
    assert not re.search(r"[0-9a-f]{64}", told), "a key is shown"
    return told


def reload(world):
    run(BIN / "qsfs", "reload", world.mount_point)


def the_data_key_changes_and_what_is_stored_follows():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        first = key_of(world)
        digests = fill(world, 12)

        second = secrets.token_hex(32)
        set_keys(world, second)
        uuid = world.status()["volume"]["uuid"]
        world.edit_config(f'volume.uuid = "{uuid}"')
        reload_is_refused(world, "old_keys")
        set_keys(world, second, first)
        reload(world)
        digests |= fill(world, 6, seed=2)
        verify(world, digests)

        # Old and new objects, after a crash and a start that knows only the new file.
        world.kill()
        world.mount()
        verify(world, digests)
        digests |= fill(world, 2, seed=3)
        verify(world, digests)
        # And on a machine that has nothing else.
        world.terminate()
        home = world.data_dir
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)
        shutil.rmtree(home)

        set_keys(world, second)
        reload_is_refused(world, "old_keys", "--recode")
        set_keys(world, second, first)
        world.kill()
        world.mount()
        run(BIN / "qsfs", "repair", "--recode", "--wait", "--json", world.mount_point)
        verify(world, digests)
        set_keys(world, second)
        for _ in range(100):
            # What was stored under the old key is deleted first.
            done = run(BIN / "qsfs", "reload", world.mount_point, check=False)
            if done.returncode == 0:
                break
            assert "to be deleted" in done.stdout + done.stderr, done.stdout + done.stderr
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr
        verify(world, digests)
        world.terminate()
        world.mount()
        verify(world, digests)
        assert world.status()["objects"]["unknown_key"] == 0
        log = (world.data_dir / "qsfs-fs.log").read_text()
        assert first not in log and second not in log


def manifests_are_made_again_under_two_keys():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 8)
        world.edit_config(f'volume.uuid = "{world.status()["volume"]["uuid"]}"')
        set_keys(world, secrets.token_hex(32), key_of(world))
        reload(world)
        digests |= fill(world, 8, seed=2)
        world.terminate()
        shutil.rmtree(world.data_dir)
        wipe(world.meta)
        report = rebuild(world, world.config)
        assert report["verdict"] == "ok" and report["head_restored"], report
        world.mount("--recover")
        verify(world, digests)


def a_key_that_is_missing_is_named_and_costs_nothing():
    with World(data=6, meta=3, k=4, n=6, extra_config=QUIET) as world:
        world.mount()
        digests = fill(world, 4)
        first, second = key_of(world), secrets.token_hex(32)
        world.edit_config(f'volume.uuid = "{world.status()["volume"]["uuid"]}"')
        set_keys(world, second, first)
        reload(world)
        digests |= fill(world, 4, seed=2)
        run(BIN / "qsfs", "evict", world.mount_point)
        world.terminate()
        # Left out at a mount, where nobody can know that it is needed.
        set_keys(world, second)
        world.mount()
        wait_until("the status says so", lambda: world.status()["objects"]["unknown_key"] > 0)
        status = world.status()
        assert status["verdict"] == "unsafe" and any("old_keys" in reason for reason in status["reasons"]), status
        try:
            (world.mount_point / "file-1-0").read_bytes()
            raise AssertionError("it cannot be read")
        except OSError:
            pass
        set_keys(world, second, first)
        reload(world)
        verify(world, digests)
        wait_until("all is well", lambda: world.status()["objects"]["unknown_key"] == 0)
        assert json.loads(run(BIN / "qsfs", "check", "--read-data", "--json", world.mount_point).stdout)["verdict"] == "ok"


if __name__ == "__main__":
    main([the_data_key_changes_and_what_is_stored_follows, manifests_are_made_again_under_two_keys,
          a_key_that_is_missing_is_named_and_costs_nothing])
