#!/usr/bin/env python3
"""Backends that are lost, wiped, empty in part, or gone from the configuration: the archive is whole again by itself.

QSFS_HEAL_MIB=1024 stores so much in the first test (the promise is about 1 GiB); without it, less.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import time

from harness import BIN, Server, World, main, run, wait_until

MIB = 1 << 20
QUICK = 'archive.dead_after = "3s"\narchive.scrub_interval = "0"'
NOTICED_WITHIN = 60


def fill(world, mib, seed=1):
    """Files of random bytes; returns their digests."""
    digests = {}
    for number in range(mib // 8):
        data = os.urandom(8 * MIB)
        path = world.mount_point / f"file-{seed}-{number}"
        path.write_bytes(data)
        digests[path.name] = hashlib.sha256(data).hexdigest()
    world.sync_remote()
    return digests


def verify(world, digests):
    world.evict()
    for name, digest in digests.items():
        assert hashlib.sha256((world.mount_point / name).read_bytes()).hexdigest() == digest, name


def is_whole(world, rebuilt=0):
    status = world.status()
    return (status["objects"]["degraded"] == 0 and status["objects"]["lost"] == 0
            and status["repair"]["state"] == "idle" and status["repair"]["shards_rebuilt"] >= rebuilt)


def wait_whole(world, what, rebuilt=1):
    wait_until(what, lambda: is_whole(world, rebuilt) or time.sleep(0.2))


def check(world, *flags):
    done = run(BIN / "qsfs", "check", "--json", *flags, world.mount_point, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    return json.loads(done.stdout)


class Resp:
    """A few commands of a 0-DB, past the volume."""

    def __init__(self, server, namespace):
        host, port = server.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.file = self.socket.makefile("rb")
        self.call(b"SELECT", namespace.encode())

    def call(self, *words):
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.read()

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest

    def keys(self):
        found, cursor = [], []
        while True:
            page = self.call(b"SCAN", *cursor)
            if not isinstance(page, list):
                return found
            found += [entry[0] for entry in page[1]]
            cursor = [page[0]]


def namespace_of(world, server):
    return next(row["namespace"] for row in world.status()["backends"] if row["address"] == server.address)


def a_lost_backend_costs_no_redundancy_for_long():
    mib = int(os.environ.get("QSFS_HEAL_MIB", "96"))
    with World(data=6, k=3, n=5, extra_config=QUICK) as world:
        world.mount()
        digests = fill(world, mib)
        world.data[0].kill()
        start = time.monotonic()
        wait_until("the loss shows", lambda: world.status()["repair"]["backends_lost"] == 1 or time.sleep(0.2))
        noticed = time.monotonic() - start
        wait_whole(world, "whole without the lost backend")
        took = time.monotonic() - start
        print(f"        {mib} MiB whole again {took:.1f} s after the loss (seen after {noticed:.1f} s)")
        report = check(world)
        assert report["verdict"] == "ok", report
        # Full redundancy: any two of the five may go now.
        world.data[1].kill()
        world.data[2].kill()
        verify(world, digests)
        status = world.status()
        assert status["verdict"] in ("unsafe", "degraded"), status["verdict"]
        # Back, it is emptied of what moved away.
        for server in world.data[:3]:
            server.start()
        wait_until("what was left behind is deleted",
                   lambda: world.status()["repair"]["shards_deleted"] > 0 or time.sleep(0.5))
        assert check(world, "--read-data")["verdict"] == "ok"


def a_wiped_backend_is_noticed_and_filled_again():
    with World(data=6, k=4, n=6, extra_config='archive.scrub_interval = "0"') as world:
        world.mount()
        digests = fill(world, 64)
        victim = world.data[3]
        wait_until("the backends were seen", lambda: (world.data_dir / "heal").exists())
        victim.kill()
        shutil.rmtree(victim.directory)
        victim.start()
        start = time.monotonic()

        def noticed():
            status = world.status()
            return status["repair"]["backends_checking"] > 0 or status["repair"]["shards_rebuilt"] > 0
        wait_until("the wipe is noticed", lambda: noticed() or time.sleep(0.2))
        assert time.monotonic() - start < NOTICED_WITHIN
        print(f"        noticed after {time.monotonic() - start:.1f} s")
        wait_whole(world, "whole again")
        print(f"        whole after {time.monotonic() - start:.1f} s")
        assert check(world, "--read-data")["verdict"] == "ok"
        world.data[0].kill()
        world.data[1].kill()
        verify(world, digests)


def what_was_stored_degraded_is_completed():
    with World(data=6, k=4, n=6, extra_config='archive.scrub_interval = "0"') as world:
        world.data[5].kill()
        world.mount()
        fill(world, 32)
        wait_until("the gap shows", lambda: world.status()["objects"]["degraded"] > 0 or time.sleep(0.2))
        assert world.status()["verdict"] != "ok"
        world.data[5].start()
        wait_whole(world, "completed")
        assert check(world)["verdict"] == "ok"


def shards_that_vanish_are_found_by_a_scrub():
    with World(data=6, k=4, n=6, extra_config='archive.scrub_interval = "0"') as world:
        world.mount()
        digests = fill(world, 32)
        resp = Resp(world.data[2], namespace_of(world, world.data[2]))
        keys = resp.keys()
        assert keys
        for key in keys[::2]:
            resp.call(b"DEL", key)
        report = check(world)
        assert report["verdict"] == "degraded" and report["shards_bad"] == len(keys[::2]), report
        done = run(BIN / "qsfs", "scrub", "--wait", world.mount_point, check=False)
        assert done.returncode == 3, done.stdout + done.stderr
        wait_whole(world, "whole after the scrub", rebuilt=0)
        assert check(world, "--read-data")["verdict"] == "ok"
        assert len(resp.keys()) == len(keys)
        verify(world, digests)


def a_backend_that_left_the_configuration_is_replaced():
    with World(data=6, k=3, n=5, extra_config='archive.scrub_interval = "0"') as world:
        world.mount()
        digests = fill(world, 32)
        world.terminate()
        text = world.config.read_text()
        groups = re.split(r"(?=^\[\[groups\]\]$)", text, flags=re.M)
        kept = [part for part in groups if world.data[0].address not in part]
        assert len(kept) == len(groups) - 1, text
        world.config.write_text("".join(kept))
        world.mount()
        world.data[0].kill()
        wait_whole(world, "moved to the others")
        assert check(world)["verdict"] == "ok"
        verify(world, digests)


def backends_are_replaced_under_a_mounted_volume():
    with World(data=6, k=4, n=6, extra_config='archive.scrub_interval = "0"') as world:
        world.mount()
        digests = fill(world, 32)
        good = world.config.read_text()
        world.config.write_text(good.replace("minimal_shards = 4", "minimal_shards = 9"))
        done = run(BIN / "qsfs", "reload", world.mount_point, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert len(world.status()["backends"]) == 9
        # A data backend and a meta backend leave, others come.
        fresh = [Server(world.home / f"fresh{i}") for i in range(2)]
        world.servers += fresh
        text = good.replace(world.data[0].address, fresh[0].address).replace(world.meta[0].address, fresh[1].address)
        world.config.write_text(text)
        run(BIN / "qsfs", "reload", world.mount_point)
        world.data[0].kill()
        world.meta[0].kill()
        done = run(BIN / "qsfs", "repair", "--wait", world.mount_point, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert check(world, "--read-data")["verdict"] == "ok"
        digests |= fill(world, 16, seed=2)
        verify(world, digests)
        # What the old meta backends held alone is on the new one: a fresh machine finds everything.
        world.meta[1].kill()
        world.terminate()
        world.mount("--recover", data_dir=world.home / "recovered")
        verify(world, digests)


def bandwidth_limits_uploads():
    with World(data=6, k=4, n=6, extra_config='archive.bandwidth = "8 MiB"\narchive.scrub_interval = "0"') as world:
        world.mount()
        start = time.monotonic()
        fill(world, 16)  # 24 MiB of shards.
        took = time.monotonic() - start
        assert took > 1.5, f"{took:.1f} s"


if __name__ == "__main__":
    main([a_lost_backend_costs_no_redundancy_for_long, a_wiped_backend_is_noticed_and_filled_again,
          what_was_stored_degraded_is_completed, shards_that_vanish_are_found_by_a_scrub,
          a_backend_that_left_the_configuration_is_replaced, backends_are_replaced_under_a_mounted_volume,
          bandwidth_limits_uploads])
