#!/usr/bin/env python3
"""The faults of backends, B1 to B17, on real processes: what each of them must not do to a mounted volume.

docs/testing.md has the list of faults, and how each test was seen to fail without what it tests.
"""
import contextlib
import json
import os
import re
import shutil
import time

from fault_proxy import Fault
from fault_world import FILES_GROWTH_MAX, MEMORY_GROWTH_MAX, MIB, FaultWorld, read_directly
from harness import BIN, Server, main, run, wait_until

QUICK_DEATH = 'archive.dead_after = "3s"\n'


def b1_backends_that_are_down():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        for down in range(2):
            world.data[down].kill()
            world.read("early")
            world.write(f"with {down + 1} down", 4)
            world.sync_remote()
        world.data[2].kill()
        world.data[3].kill()
        world.evict()
        world.read_fails("early")
        world.write("with four down", 4)
        for server in world.data[4:] + world.meta:
            server.kill()
        world.write("with all down", 12)
        wait_until("it shows", lambda: world.status()["verdict"] == "unsafe" or time.sleep(0.2))
        for server in world.servers:
            server.start()
        world.sync_remote()
        world.read()
        world.nothing_is_doubled()


def b2_slow_backends():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        for fault in (Fault("delay", ["GET", "SET"], seconds=2), Fault("trickle", ["GET"], rate=1000)):
            world.break_data(2, fault)
            world.read("early")
            before = [proxy.commands["SET"] for proxy in world.data_proxies]
            world.write(f"with {fault.kind}", 16)
            world.sync_remote()
            stored = [proxy.commands["SET"] - was for proxy, was in zip(world.data_proxies, before)]
            if fault.kind == "delay":
                # 18 stripes and the journals: one that answers late gets a few, and then no more.
                assert sum(stored[:2]) / 2 < sum(stored[2:]) / 5 / 2, stored
            world.read()
            world.mend()


def b3_half_open_backends():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        world.read()
        memory, files = world.memory(), world.open_files()
        for fault in (Fault("hold", ["GET", "SET", "CHECK", "NSINFO", "INFO"]), Fault("stall", ["GET", "SET"], at=1),
                      Fault("stall", ["GET"], at=3000), Fault("mute", ["CONNECT"])):
            world.break_data(2, fault)
            if fault.kind == "mute":
                for proxy in world.data_proxies[:2]:
                    proxy.break_all()
            for _ in range(12):
                world.read("early")
            world.write(f"with {fault.kind} {fault.get('at')}", 4)
            world.sync_remote()
            assert world.open_files() - files < FILES_GROWTH_MAX, f"{world.open_files()} descriptors, were {files}"
            assert world.memory() - memory < MEMORY_GROWTH_MAX, f"{world.memory()} bytes, were {memory}"
        world.wait_state(world.data[0], "unreachable")
        world.mend()
        world.nothing_is_doubled()
        world.read()


def connections_end(*kinds):
    """Each of `kinds` is a set of faults, of two backends."""
    with FaultWorld() as world:
        world.mount()
        happened = 0
        for number, faults in enumerate(kinds):
            world.break_data(2, *faults)
            for part in range(3):
                world.write(f"file {number} {part}", 3)
                if "SELECT" in faults[0].commands:
                    for proxy in world.data_proxies[:2]:
                        proxy.break_all()
                world.sync_remote()
                world.read(f"file {number} {part}")
            before = happened
            happened += sum(fault.happened for proxy in world.data_proxies[:2] for fault in proxy.faults)
            assert happened > before
            world.mend()
            world.ask_all()
            for server in world.data[:2]:
                world.wait_state(server, "healthy")
            world.read()
        world.nothing_is_doubled(lost_replies=happened)


def b4_replies_that_are_cut():
    # One byte later each time, in every kind of reply.
    connections_end((Fault("cut", probability=0.2),))


def b4_replies_that_are_lost():
    connections_end((Fault("drop_reply", ["SET"], probability=0.3), Fault("drop_reply", ["GET"], probability=0.2)),
                    (Fault("cut", ["SELECT", "AUTH"], count=4),))


def b5_wrong_values():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        for kind in ("flip", "short", "zero", "junk", "swap", "missing"):
            world.break_data(2, Fault(kind, ["GET"]))
            world.read("early")
            world.write(f"with {kind}", 2)
            world.sync_remote()
            world.mend()
        world.read()
        # What is wrong where it is stored is noticed when it is read, and made good.
        resp = world.resp(world.data[0])
        keys = resp.keys()
        values = [resp.call(b"GET", key) for key in keys]
        for number, key in enumerate(keys):
            other = values[(number + 1) % len(keys)]
            resp.call(b"SET", key, (os.urandom(100), bytes(len(other)), other, values[number][:-1])[number % 4])
        run(BIN / "qsfs", "scrub", "--wait", "--read-data", world.mount_point, check=False)
        wait_until("all is rebuilt", lambda: world.check("--read-data")["verdict"] == "ok" or time.sleep(0.5))
        assert world.status()["repair"]["shards_rebuilt"] > 0
        # With two others gone it is needed.
        world.data[1].kill()
        world.data[2].kill()
        world.read()


def b6_replies_against_the_protocol():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        world.read()
        memory = world.memory()
        world.forget_memory_peak()
        every = ["GET", "SET", "CHECK", "NSINFO", "INFO"]
        for number, fault in enumerate([Fault("huge", every), Fault("huge_array", every), Fault("endless", every, mib=400),
                                        Fault("extra", every), Fault("previous", every), Fault("wrong_type", every),
                                        Fault("garbage", every)]):
            world.break_data(2, fault)
            world.meta_proxies[0].set(Fault(fault.kind, every, **fault.options))
            world.read("early")
            world.write(f"with {number}", 2)
            world.sync_remote()
            grown = world.memory("VmHWM") - memory
            assert grown < MEMORY_GROWTH_MAX, f"{fault.kind}: {grown} bytes more"
            world.mend()
        world.read()
        world.nothing_is_doubled()


def b7_full_disks_and_disks_that_fail():
    with FaultWorld() as world:
        world.mount()
        full = Fault("error", ["SET"], text="No space left on this namespace")
        failing = Fault("error", ["SET"], text="Cannot write data right now")
        world.break_data(1, full)
        world.data_proxies[1].set(failing)
        world.write("with two full", 8)
        world.sync_remote()
        world.wait_state(world.data[0], "full")
        world.read()
        world.break_data(7, full)
        world.write("with all full", 8)
        waiting = world.sync_remote_in_background()
        wait_until("it shows", lambda: (world.status()["verdict"] == "unsafe"
                                        and world.status()["archive"]["last_error"]) or time.sleep(0.2))
        assert waiting.poll() is None
        world.write("still", 4)
        world.mend()
        # By itself.
        assert waiting.wait(120) == 0
        world.read()
        world.nothing_is_doubled()


def b8_refused_passwords():
    with FaultWorld(extra_config=QUICK_DEATH) as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        refused = [Fault("error", ["SELECT", "AUTH"], text="Access denied"), Fault("refuse")]
        for number, text in enumerate(["Access denied", "Namespace not found"]):
            proxy = world.data_proxies[number]
            proxy.set(Fault("error", ["SELECT", "AUTH"], text=text), Fault("refuse", ["GET", "SET", "NSINFO", "INFO"]))
            proxy.break_all()
        world.data_proxies[1].set(*refused)
        world.wait_state(world.data[0], "wrong credentials")
        before = [proxy.commands["SELECT"] + proxy.commands["AUTH"] for proxy in world.data_proxies[:2]]
        start = time.monotonic()
        while time.monotonic() < start + 12:
            world.read("early")
            world.write("busy", 1)
            world.sync_remote()
            run(BIN / "qsfs", "reload", world.mount_point)  # Asks all backends how they are.
        allowed = 1 + (time.monotonic() - start) // 30
        tries = [proxy.commands["SELECT"] + proxy.commands["AUTH"] - was
                 for proxy, was in zip(world.data_proxies[:2], before)]
        assert max(tries) <= allowed, f"{tries} tries, {allowed} allowed"
        assert world.row(world.data[0])["state"] == "wrong credentials"
        assert world.status()["verdict"] != "ok"


def b9_locked_namespaces():
    with FaultWorld(extra_config=QUICK_DEATH) as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        world.break_data(7, Fault("error", ["SET", "DEL"], text="Namespace is temporarily locked"))
        world.write("while locked", 8)
        waiting = world.sync_remote_in_background()
        world.wait_state(world.data[0], "locked")
        world.read("early")
        world.wait_uptime(5)  # Longer than dead_after.
        status = world.status()
        assert status["repair"]["backends_lost"] == 0 and status["repair"]["shards_rebuilt"] == 0, status["repair"]
        assert waiting.poll() is None
        world.mend()
        assert waiting.wait(120) == 0
        world.read()


def b9_frozen_namespaces():
    with FaultWorld(extra_config=QUICK_DEATH) as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        for proxy in world.data_proxies[:2]:
            proxy.set(Fault("error", ["GET", "SET", "DEL", "CHECK"], text="Namespace is temporarily frozen"))
        world.read()
        world.write("while frozen", 4)
        world.sync_remote()
        world.wait_uptime(5)
        assert world.status()["repair"]["backends_lost"] == 0
        world.mend()
        world.read()


def b10_a_wipe_costs_nothing_else_meanwhile():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 32)
        world.sync_remote()
        wait_until("the backends were seen", lambda: (world.data_dir / "heal").exists())
        removed = [proxy.commands["DEL"] for proxy in world.data_proxies]
        kept = list(map(len, world.stored_keys()))
        victim = world.data[3]
        victim.kill()
        shutil.rmtree(victim.directory)
        victim.start()
        start = time.monotonic()
        wait_until("it is noticed", lambda: world.status()["repair"]["shards_rebuilt"] > 0 or time.sleep(0.2))
        assert time.monotonic() - start < 60
        world.wait_whole()
        for server, proxy, was in zip(world.data, world.data_proxies, removed):
            assert server is victim or proxy.commands["DEL"] == was, f"{proxy.commands['DEL'] - was} shards deleted"
        assert all(now >= was for now, was in zip(map(len, world.stored_keys()), kept))
        world.nothing_is_doubled()
        world.read()


def b11_a_power_cut_of_all_backends():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        kept = world.snapshot(world.data)
        # The volume has seen the servers that the snapshot is from.
        world.write("late", 8)
        world.sync_remote()
        world.power_cut(world.data, kept)
        # The local copy is there: what the backends have forgotten is stored again.
        wait_until("it is stored again",
                   lambda: world.metric("qsfs_repair_objects_restored_total") >= 1 or time.sleep(0.2))
        world.wait_whole()
        world.nothing_is_doubled()
        world.read()


def b11_what_was_archived_a_moment_ago_is_kept_here():
    with FaultWorld("max_zdb_data_dir_size = 32\n") as world:
        world.mount()
        for part in range(5):
            world.write(f"early {part}", 8)
        world.sync_remote()
        world.evict()
        kept = world.snapshot(world.data)
        world.write("late", 8)
        world.sync_remote()
        # Reads bring back more than the cache may hold; what the backends may still forget does not make room for it.
        for part in range(5):
            read_directly(world.mount_point / f"early {part}")
        info = json.loads(run(BIN / "qsfs", "info", "--json", world.mount_point / "late").stdout)
        assert all(extent["archived"] and extent["resident"] for extent in info["extents"]), info
        world.power_cut(world.data, kept)
        wait_until("it is stored again",
                   lambda: world.metric("qsfs_repair_objects_restored_total") >= 1 or time.sleep(0.2))
        world.wait_whole()
        world.read()


def b12_backends_that_lie():
    with FaultWorld() as world:
        world.mount()
        world.break_data(2, Fault("lie", ["SET"]))
        world.write("two lie", 8)
        world.sync_remote()
        world.read()
        world.break_data(7, Fault("lie", ["SET"], probability=0.05))
        world.write("all lie a little", 8)
        world.sync_remote()
        world.read()
        world.break_data(7, Fault("lie", ["SET"]))
        world.write("all lie", 8)
        waiting = world.sync_remote_in_background()
        wait_until("it shows", lambda: world.status()["archive"]["last_error"] or time.sleep(0.2))
        assert waiting.poll() is None
        # Nothing that is nowhere else is evicted.
        world.read()
        world.mend()
        assert waiting.wait(120) == 0
        world.read()
        run(BIN / "qsfs", "repair", "--wait", world.mount_point, check=False)
        world.nothing_is_doubled()


def b13_backends_that_were_rolled_back():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        kept = world.snapshot(world.meta)
        world.write("late", 8)
        world.sync_remote()
        first = world.data_dir
        # One of three is outvoted, on this machine and on a fresh one.
        world.power_cut(world.meta[:1], kept)
        world.write("later", 4)
        world.sync_remote()
        world.terminate()
        world.power_cut(world.meta[1:2], kept)
        world.mount("--recover", data_dir=world.home / "fresh")
        world.read()
        world.terminate()
        # All of them, while nobody looks: who has seen newer publishes it again, before anything else.
        world.power_cut(world.meta, kept)
        world.mount(data_dir=first)
        world.write("after the roll-back", 2)
        world.sync_remote()
        receipt = world.status()["receipt"]
        world.terminate()
        world.mount("--recover", data_dir=world.home / "another")
        world.read()
        world.terminate()
        # And under a fresh machine that has nothing but the receipt.
        world.power_cut(world.meta, kept)
        done = run(BIN / "qsfs-fs", "--config", world.config, "--data-dir", world.home / "third", "--recover", "--receipt",
                   f"{receipt['generation']}:{receipt['hash']}", world.mount_point, check=False)
        assert done.returncode != 0 and "receipt" in done.stderr, done.stdout + done.stderr


def b14_forged_shards_and_manifests():
    """By one who may write to the namespaces, and has no key."""
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.write("late", 8)
        world.sync_remote()
        for server in world.data[:2]:
            resp = world.resp(server)
            keys = resp.keys()
            values = [resp.call(b"GET", key) for key in keys]
            for number, key in enumerate(keys):
                resp.call(b"SET", key, values[(number + 1) % len(keys)])
        resp = world.resp(world.meta[0])
        keys = resp.keys()
        values = [resp.call(b"GET", key) for key in keys]
        for number, key in enumerate(keys):
            resp.call(b"SET", key, values[(number + 1) % len(keys)])
        world.read()
        world.terminate()
        world.mount("--recover", data_dir=world.home / "fresh")
        world.read()
        run(BIN / "qsfs", "scrub", "--wait", "--read-data", world.mount_point, check=False)
        world.wait_whole()
        world.nothing_is_doubled()


def b15_backends_that_flap():
    with FaultWorld(extra_config='archive.dead_after = "30s"\n') as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        end = time.monotonic() + 20
        turn = 0
        while time.monotonic() < end:
            # Three in turn, m + 1, but not at once.
            world.mend()
            proxy = world.data_proxies[turn % 3]
            proxy.set(Fault("refuse"), Fault("refuse", ["CONNECT"]))
            proxy.break_all()
            world.read("early")
            world.write(f"turn {turn % 4}", 1)
            turn += 1
            time.sleep(1)
        world.mend()
        world.sync_remote()
        run(BIN / "qsfs", "repair", "--wait", world.mount_point, check=False)
        repair = world.status()["repair"]
        # What was stored while one was away may have been completed; nothing was moved away for it.
        assert repair["shards_moved"] <= 2 * 6 * turn, repair
        world.read()
        world.nothing_is_doubled()


def b16_all_backends_down_until_the_cache_is_full():
    with FaultWorld(extra_config='max_zdb_data_dir_size = 64\ncache.on_full = "enospc"\n') as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        for proxy in world.proxies.values():
            proxy.set(Fault("refuse"), Fault("refuse", ["CONNECT"]))
            proxy.break_all()
        written = 0
        with contextlib.suppress(OSError):
            while written < 128:
                world.write(f"file {written}", 4)
                written += 4
        assert 16 <= written < 128, f"{written} MiB fit into 64"
        # At the limit the volume is still one that can be looked at and emptied.
        os.unlink(world.mount_point / f"file {written}")
        os.unlink(world.mount_point / "file 0")
        del world.digests["file 0"]
        assert len(os.listdir(world.mount_point)) == len(world.digests)
        world.mend()
        # The kernel tells of the write that failed once more.
        run(BIN / "qsfs", "sync", world.mount_point, check=False)
        world.sync_remote()
        world.write("afterwards", 8)
        world.sync_remote()
        world.read()


def b17_changes_of_the_configuration_with_crashes_between():
    with FaultWorld(data=7, k=3, n=5) as world:
        world.mount()
        world.write("early", 16)
        world.sync_remote()
        good = world.config.read_text()
        groups = re.split(r"(?=^\[\[groups\]\]$)", good, flags=re.M)

        def without(*servers):
            gone = [world.proxies[id(server)].address for server in servers]
            return "".join(part for part in groups if not any(address in part for address in gone))
        for step, text in enumerate([without(world.data[0]), without(world.data[0], world.data[1]),
                                     good.replace("minimal_shards = 3", "minimal_shards = 4")
                                         .replace("expected_shards = 5", "expected_shards = 6"),
                                     good, without(world.data[1])]):
            world.config.write_text(text)
            run(BIN / "qsfs", "reload", world.mount_point)
            # In the middle of what that began.
            world.write(f"step {step}", 4)
            time.sleep(0.3 * step)
            world.kill()
            world.mount()
            world.read(*(name for name in world.digests))
            world.sync_remote()
        done = run(BIN / "qsfs", "repair", "--wait", world.mount_point, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        world.wait_whole()
        assert world.check("--read-data")["verdict"] == "ok"
        world.data[2].kill()
        world.data[3].kill()
        world.read()


def p8_a_stop_waits_for_no_backend():
    with FaultWorld() as world:
        world.mount()
        world.write("early", 8)
        world.sync_remote()
        for proxy in world.proxies.values():
            proxy.set(Fault("hold"))
        world.write("late", 16)
        waiting = world.sync_remote_in_background()
        wait_until("uploads hang", lambda: any(
            fault.happened for proxy in world.data_proxies for fault in proxy.faults) or time.sleep(0.1))
        start = time.monotonic()
        world.terminate()
        took = time.monotonic() - start
        print(f"        stopped after {took:.1f} s")
        assert took < 30
        assert waiting.wait(30) != 0
        world.mend()
        world.mount()
        world.sync_remote()
        world.read()


if __name__ == "__main__":
    main([function for name, function in sorted(globals().items()) if re.match(r"[bp]\d+_", name)])
