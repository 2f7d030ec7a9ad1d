#!/usr/bin/env python3
"""qsfsd with real volumes: their whole life, what must be repeatable, and what a crash must not lose."""
import json
import os
import signal
import subprocess
import sys
import time

from harness import BIN, main, run, wait_until
from qsfsd_harness import MIB, Daemon, mounts_under, processes_of

FILE = bytes(range(256)) * 4096  # 1 MiB
# lifecycle/failpoints.h has them in the order of the calls.
MOUNT_FAILPOINTS = ["directory", "state", "config", "network", "bound", "spawned", "answered", "done"]
DELETE_FAILPOINTS = ["delete.tombstone", "delete.state", "drain.stopped", "drain.mounted", "drain.archived",
                     "remove.process", "remove.unmounted", "remove.data", "remove.network"]


def is_another(state, pid):
    return state["running"] and state["pid"] != pid


def write(path, content=FILE):
    with open(path, "wb") as file:
        file.write(content)
        os.fsync(file.fileno())


def hide(directory):
    """A backend that cannot be reached any more."""
    directory.rename(directory.with_name(directory.name + ".hidden"))
    directory.write_text("not a directory")


def show_again(directory):
    directory.unlink()
    directory.with_name(directory.name + ".hidden").rename(directory)


def hide_backends(daemon, name):
    for i in range(2):
        hide(daemon.home / "backends" / f"{name}-{i}")


def show_backends(daemon, name):
    for i in range(2):
        show_again(daemon.home / "backends" / f"{name}-{i}")


def five_volumes_live_and_go_side_by_side():
    with Daemon().start() as daemon:
        names = [f"1-{i}-data" for i in range(5)]
        paths = dict(zip(names, daemon.together(names, daemon.mount)))
        for name, path in paths.items():
            assert path == daemon.root / "mounts" / name
            assert [kind for point, kind in mounts_under(daemon.root) if point == str(path)][1:] == ["fuse.qsfs"]
            assert len([point for point, _ in mounts_under(daemon.root) if point == str(path)]) == 2
            write(path / "file", FILE + name.encode())
        listed = daemon.call("GET", "/volumes")[1]["volumes"]
        assert sorted(volume["id"] for volume in listed) == names and all(volume["running"] for volume in listed)
        metrics = daemon.call("GET", "/metrics")[1]
        for name in names:
            assert f'qsfsd_volume_up{{volume="{name}"}} 1' in metrics
            assert f'fs_fuse_reqs{{volume="{name}"}}' in metrics
        daemon.together(names, daemon.delete_and_wait)
        assert daemon.remainders() == [], daemon.remainders()
        # All of it was archived before it went.
        daemon.together(names, daemon.mount)
        for name, path in paths.items():
            assert (path / "file").read_bytes() == FILE + name.encode()
        daemon.together(names, daemon.delete_and_wait)
        assert daemon.remainders() == []


def calls_can_be_repeated():
    with Daemon().start() as daemon:
        path = daemon.mount("a")
        write(path / "file")
        pid, before = daemon.show("a")["pid"], mounts_under(daemon.root)
        for _ in range(3):
            assert daemon.mount("a") == path
        assert daemon.show("a")["pid"] == pid and mounts_under(daemon.root) == before
        status, answer = daemon.call("PUT", "/volumes/a", daemon.workload("a", cache=512 * MIB))
        assert status == 409 and "update" in answer["error"], answer
        assert daemon.show("a")["pid"] == pid and (path / "file").read_bytes() == FILE
        for _ in range(3):
            daemon.delete("a")
        daemon.wait_gone("a")
        daemon.delete("a")
        daemon.delete("never-was")
        assert daemon.call("DELETE", "/volumes/never-was?now")[0] == 200
        assert daemon.remainders() == []
        assert daemon.call("PATCH", "/volumes/a", daemon.workload("a"))[0] == 404


def wrong_calls_touch_nothing():
    with Daemon().start() as daemon:
        bad = daemon.workload("a", cache=1, minimal_shards=9)
        status, answer = daemon.call("PUT", "/volumes/a", bad)
        assert status == 400 and "cache: " in answer["error"] and "config.minimal_shards: " in answer["error"], answer
        for name in ("..%2Fx", "%2E%2E", "a%20b", "-a"):
            assert daemon.call("PUT", f"/volumes/{name}", daemon.workload("a"))[0] in (400, 404), name
            assert daemon.call("DELETE", f"/volumes/{name}")[0] in (400, 404), name
        assert daemon.remainders() == []


def a_mount_that_fails_says_why_and_leaves_nothing():
    with Daemon().start() as daemon:
        workload = daemon.workload("a", expected_shards=3, redundant_groups=1, redundant_nodes=1)
        status, answer = daemon.call("PUT", "/volumes/a", workload)
        assert status == 503 and "redundant" in answer["error"], answer  # The process's own words.
        assert daemon.remainders() == [], daemon.remainders()
    # A program that never mounts is ended at the deadline.
    with Daemon("--mount-timeout", "6s") as daemon:
        script = daemon.home / "never"
        script.write_text("#!/bin/sh\necho waiting for nothing >&2\nexec sleep 600\n")
        script.chmod(0o755)
        daemon.flags = tuple(script if flag == daemon.flags[2] else flag for flag in daemon.flags)
        daemon.start()
        status, answer = daemon.call("PUT", "/volumes/a", daemon.workload("a"))
        assert status == 504, (status, answer)
        wait_until("it is undone", lambda: daemon.call("GET", "/volumes/a")[0] == 404)
        assert daemon.remainders() == [], daemon.remainders()


def an_update_is_taken_whole_or_not_at_all():
    with Daemon().start() as daemon:
        path = daemon.mount("a")
        config = daemon.root / "volumes" / "a" / "zstor.toml"
        assert config.stat().st_mode & 0o777 == 0o600
        status, _ = daemon.call("PATCH", "/volumes/a", daemon.workload("a", max_zdb_data_dir_size=32))
        assert status == 200 and "max_zdb_data_dir_size = 32\n" in config.read_text()
        before = config.read_text()
        limit = json.loads(run(BIN / "qsfs", "status", "--json", path, check=False).stdout)["cache"]["limit_bytes"]
        assert limit == 32 * MIB, limit
        # The process refuses; the caller hears why, and the old file is back.
        other = daemon.workload("a")
        other["config"]["meta"]["config"]["prefix"] = "other"
        status, answer = daemon.call("PATCH", "/volumes/a", other)
        assert status == 400 and "prefix" in answer["error"], (status, answer)
        assert config.read_text() == before and daemon.show("a")["running"]
        # Shard counts are taken over by the running process.
        pid = daemon.show("a")["pid"]
        status, answer = daemon.call("PATCH", "/volumes/a", daemon.workload("a", expected_shards=2))
        assert status == 200, (status, answer)
        assert "expected_shards = 2\n" in config.read_text()
        assert daemon.show("a")["running"] and daemon.show("a")["pid"] == pid


def a_dead_process_comes_back():
    with Daemon().start() as daemon:
        path = daemon.mount("a")
        write(path / "file")
        pid = daemon.show("a")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until("another process", lambda: is_another(daemon.show("a"), pid))
        assert (path / "file").read_bytes() == FILE
        state = daemon.show("a")
        assert state["restarts"] == 1, state
        assert len(mounts_under(daemon.root)) == 2, mounts_under(daemon.root)


def the_daemon_can_go_and_come_back():
    with Daemon().start() as daemon:
        paths = {name: daemon.mount(name) for name in ("a", "b")}
        for path in paths.values():
            write(path / "file")
        pids = {name: daemon.show(name)["pid"] for name in paths}
        daemon.kill()
        os.kill(pids["b"], signal.SIGKILL)
        daemon.start()
        for name, path in paths.items():
            daemon.wait_running(name)
            assert (path / "file").read_bytes() == FILE
        assert daemon.show("a")["pid"] == pids["a"] and daemon.show("b")["pid"] != pids["b"]
        daemon.stop()
        assert (paths["a"] / "file").read_bytes() == FILE  # Volumes outlive it.
        daemon.start()
        daemon.wait_running("a")
        assert daemon.show("a")["pid"] == pids["a"]
        daemon.together(list(paths), daemon.delete_and_wait)
        assert daemon.remainders() == []


def a_second_daemon_is_refused():
    with Daemon().start() as daemon:
        second = subprocess.run([BIN / "qsfsd", "--root", daemon.root, *daemon.flags], capture_output=True, text=True,
                                timeout=60)
        assert second.returncode == 1 and "locked" in second.stderr, second


def a_reboot_brings_volumes_back_and_drains_on():
    with Daemon().start() as daemon:
        paths = {name: daemon.mount(name) for name in ("kept", "deleted")}
        for path in paths.values():
            write(path / "file")
        hide_backends(daemon, "deleted")
        daemon.delete("deleted")
        wait_until("it is draining", lambda: daemon.show("deleted")["last_error"])
        daemon.crash_everything()
        show_backends(daemon, "deleted")
        daemon.start()
        daemon.wait_running("kept")
        assert (paths["kept"] / "file").read_bytes() == FILE
        daemon.wait_gone("deleted")
        assert (daemon.mount("deleted") / "file").read_bytes() == FILE


def a_mount_while_it_drains_is_refused():
    with Daemon().start() as daemon:
        write(daemon.mount("a") / "file")
        hide_backends(daemon, "a")
        daemon.delete("a")
        for call in ("PUT", "PATCH"):
            status, answer = daemon.call(call, "/volumes/a", daemon.workload("a"))
            assert status == 409 and "deletion" in answer["error"], (status, answer)
        wait_until("it drains", lambda: daemon.show("a")["behind_bytes"])
        assert (daemon.root / "tombstones" / "a").exists()
        assert not (daemon.root / "mounts" / "a").exists()  # Nobody writes to it any more.
        show_backends(daemon, "a")
        daemon.wait_gone("a")
        assert (daemon.mount("a") / "file").read_bytes() == FILE


def a_drain_that_is_slow_is_not_given_up():
    """Many periods pass in which nothing is sent: the seed's rules would have ended it."""
    with Daemon("--cleanup-period", "50ms", "--cleanup-failures", "2").start() as daemon:
        write(daemon.mount("a") / "file")
        hide_backends(daemon, "a")
        daemon.delete("a")
        wait_until("it drains", lambda: not (daemon.root / "mounts" / "a").exists() and daemon.show("a")["running"])
        pid = daemon.show("a")["pid"]
        for _ in range(2):
            end = time.monotonic() + 1
            while time.monotonic() < end:
                assert daemon.show("a")["phase"] == "draining"
            daemon.kill()  # Nor does a new daemon start it over.
            daemon.start()
            wait_until("it is there", lambda: daemon.show("a").get("running"))
        assert daemon.show("a")["pid"] == pid
        show_backends(daemon, "a")
        daemon.wait_gone("a")
        assert (daemon.mount("a") / "file").read_bytes() == FILE


def others_get_to_the_mount_point():
    with Daemon().start() as daemon:
        path = daemon.mount("a")
        write(path / "file")
        os.chmod(path, 0o755)
        os.chmod(path / "file", 0o644)
        os.chmod(daemon.home, 0o755)
        read = ["setpriv", "--reuid", "65534", "--clear-groups", "cat"]
        assert subprocess.run([*read, path / "file"], capture_output=True, timeout=60, check=True).stdout == FILE
        for secret in ("volumes/a/zstor.toml", "volumes/a/workload.json"):
            assert subprocess.run([*read, daemon.root / secret], capture_output=True, timeout=60, check=False).returncode


def what_cannot_be_archived_is_set_aside_and_comes_back():
    with Daemon().start() as daemon:
        write(daemon.mount("a") / "file")
        hide_backends(daemon, "a")
        status, answer = daemon.call("DELETE", "/volumes/a?now")
        assert status == 200, answer
        undrained = daemon.call("GET", "/volumes")[1]["undrained"]
        assert [kept["name"] for kept in undrained] == ["a"], undrained
        assert daemon.remainders() == [str(daemon.root / "undrained" / "a")]
        show_backends(daemon, "a")
        assert (daemon.mount("a") / "file").read_bytes() == FILE
        daemon.delete_and_wait("a")
        assert daemon.remainders() == []


def a_volume_that_cannot_be_asked_is_judged_and_kept():
    with Daemon("--cleanup-period", "300ms", "--cleanup-failures", "3").start() as daemon:
        write(daemon.mount("a") / "file")
        hide_backends(daemon, "a")
        daemon.kill()
        daemon.crash_everything()
        # Its log is damaged: the process does not start any more.
        config = daemon.root / "volumes" / "a" / "workload.json"
        config.write_text("{")
        (daemon.root / "tombstones" / "a").write_text("")
        daemon.start()
        daemon.wait_gone("a")
        assert [kept["name"] for kept in daemon.call("GET", "/volumes")[1]["undrained"]] == ["a"]
        assert list((daemon.root / "undrained" / "a" / "data" / "log").iterdir())


def old_markers_become_tombstones():
    with Daemon().start() as daemon:
        daemon.mount("a")
        daemon.stop()
        (daemon.root / "volumes" / "a" / ".death.scheduled").write_text("")
        daemon.start()
        daemon.wait_gone("a")
        assert daemon.remainders() == []


def markers_in_old_containers_become_tombstones_once():
    with Daemon() as daemon:
        containers = daemon.home / "containers"
        for name in ("1-2-old", "1-2-new", "not a volume"):
            (containers / name / "data").mkdir(parents=True)
            (containers / name / "data" / "kept").write_text("theirs")
            (containers / name / ".death.scheduled").write_text("")
        (containers / "1-2-live").mkdir()
        (daemon.root / "volumes" / "1-2-new").mkdir(parents=True)  # Mounted here since.
        daemon.flags += ("--old-rootfs-dir", containers)
        daemon.start()
        assert not list(containers.glob("1-*/.death.scheduled"))
        log = (daemon.home / "qsfsd.log").read_text()
        assert "volume 1-2-old: the delete marker in its container is a tombstone now" in log, log
        wait_until("nothing was left to remove", lambda: daemon.remainders() == [])
        # A volume of that name lives, however often the daemon starts.
        path = daemon.mount("1-2-old")
        daemon.stop()
        daemon.start()
        daemon.wait_running("1-2-old")
        assert os.path.ismount(path)
        assert len(list(containers.glob("*/data/kept"))) == 3


def a_mount_that_others_serve_is_left_to_them():
    """As on a node whose containers were started by an older daemon."""
    with Daemon() as daemon:
        other = daemon.home / "other"
        path = daemon.root / "mounts" / "1-2-old"
        path.mkdir(parents=True)
        run(BIN / "qsfs", "init", "--config", daemon.home / "other.toml", "--data-dir", other, "--local", daemon.home / "zdbs")
        run(BIN / "qsfs-fs", "--config", daemon.home / "other.toml", "--data-dir", other, path)
        try:
            write(path / "file")
            (daemon.root / "tombstones").mkdir()
            (daemon.root / "tombstones" / "1-2-old").write_text("")
            daemon.start()
            wait_until("it is seen", lambda: "another program" in daemon.show("1-2-old").get("last_error", ""))
            status, answer = daemon.call("PUT", "/volumes/1-2-old", daemon.workload("1-2-old"))
            assert status == 409, (status, answer)
            assert (path / "file").read_bytes() == FILE
            assert (daemon.root / "tombstones" / "1-2-old").exists()
        finally:
            run(BIN / "qsfs", "umount", path)
        daemon.wait_gone("1-2-old")
        assert daemon.remainders() == [], daemon.remainders()


def a_crash_at_any_step_of_a_mount_leaves_nothing():
    with Daemon() as daemon:
        for step in MOUNT_FAILPOINTS:
            daemon.start(failpoint=f"qsfsd.mount.{step}")
            try:
                daemon.call("PUT", "/volumes/a", daemon.workload("a"))
                raise AssertionError(f"{step} was not reached")
            except (ConnectionError, OSError):
                pass
            daemon.wait_dead()
            daemon.start()
            if step == "done":
                daemon.wait_running("a")
            else:
                daemon.wait_gone("a")
                assert daemon.remainders() == [], (step, daemon.remainders())
            write(daemon.mount("a") / step)
            assert len(processes_of(daemon.root)) == 1 and len(mounts_under(daemon.root)) == 2, step
            daemon.delete_and_wait("a")
            assert daemon.remainders() == [], (step, daemon.remainders())
            daemon.stop()
        daemon.start()
        assert sorted(os.listdir(daemon.mount("a"))) == sorted(MOUNT_FAILPOINTS)


def a_crash_at_any_step_of_a_delete_loses_nothing():
    with Daemon() as daemon:
        for step in DELETE_FAILPOINTS:
            daemon.start(failpoint=f"qsfsd.{step}")
            write(daemon.mount("a") / step)
            try:
                daemon.call("DELETE", "/volumes/a")
            except (ConnectionError, OSError):
                assert step == "delete.tombstone" or step == "delete.state", step
            daemon.wait_dead()
            daemon.start()
            daemon.wait_gone("a")
            assert daemon.remainders() == [], (step, daemon.remainders())
            daemon.stop()
        daemon.start()
        path = daemon.mount("a")
        assert sorted(os.listdir(path)) == sorted(DELETE_FAILPOINTS)
        assert all((path / step).read_bytes() == FILE for step in DELETE_FAILPOINTS)


def a_crash_in_an_update_keeps_the_old_configuration():
    with Daemon() as daemon:
        for step in ("config", "reloaded"):
            daemon.start(failpoint=f"qsfsd.update.{step}")
            daemon.mount("a")
            try:
                daemon.call("PATCH", "/volumes/a", daemon.workload("a", max_zdb_data_dir_size=32))
            except (ConnectionError, OSError):
                pass
            daemon.wait_dead()
            daemon.start()
            daemon.wait_running("a")
            assert "max_zdb_data_dir_size = 64\n" in (daemon.root / "volumes" / "a" / "zstor.toml").read_text()
            assert daemon.mount("a")  # The workload that it was mounted with.
            daemon.stop()


def the_command_line_does_the_same():
    with Daemon().start() as daemon:
        socket = daemon.root / "qsfsd.sock"
        workload = daemon.home / "workload.json"
        workload.write_text(json.dumps(daemon.workload("a")))

        def volume(command, *words, check=True):
            return run(BIN / "qsfs", "volume", command, "--socket", socket, *words, check=check)

        assert f"a is mounted at {daemon.root}/mounts/a." in volume("mount", "a", workload).stdout
        assert "running" in volume("list").stdout
        assert json.loads(run(BIN / "qsfs", "--json", "volume", "show", "--socket", socket, "a").stdout)["running"]
        workload.write_text(json.dumps(daemon.workload("a", max_zdb_data_dir_size=32)))
        volume("update", "a", workload)
        assert volume("metrics").returncode == 0
        workload.write_text("{}")
        assert volume("mount", "b", workload, check=False).returncode == 2
        volume("delete", "a")
        daemon.wait_gone("a")
        assert volume("show", "a", check=False).returncode == 1
        volume("delete", "--now", "a")
        daemon.stop()
        assert "is qsfsd running" in volume("list", check=False).stderr


def limits_are_in_force():
    with Daemon().start() as daemon:
        daemon.mount("a")
        pid = daemon.show("a")["pid"]
        status = open(f"/proc/{pid}/status", encoding="ascii").read()
        assert "NoNewPrivs:\t1" in status and "CapBnd:\t0000000000204006" in status, status
        assert open(f"/proc/{pid}/oom_score_adj", encoding="ascii").read().strip() == "500"
        limit = f"/sys/fs/cgroup/memory/qsfs-it-{os.getpid()}/a/memory.limit_in_bytes"
        if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            assert int(open(limit, encoding="ascii").read()) == 1 << 30
        daemon.delete_and_wait("a")
        assert not os.path.exists(os.path.dirname(limit))


def fifty_volumes_come_and_go(rounds=1):
    """A second round shows what leaks, and not only what the first has filled."""
    with Daemon().start() as daemon:
        names = [f"v{i}" for i in range(50)]
        used = []
        for _ in range(rounds + 1):
            daemon.together(names[:25], daemon.mount)
            daemon.together(names[25:], daemon.mount)
            for name in names[::10]:
                write(daemon.root / "mounts" / name / "file")
            for start in range(0, 50, 25):
                daemon.together(names[start:start + 25], daemon.delete_and_wait)
            assert daemon.remainders() == [], daemon.remainders()
            daemon.call("GET", "/volumes")  # Takes what has retired out of the map.
            wait_until("its threads have ended", lambda: daemon.usage()["threads"] == 2)
            used.append(daemon.usage())
        print("qsfsd after each round of 50 volumes:", used)
        assert used[-1]["files"] == used[0]["files"], used
        assert used[-1]["resident_kib"] < used[0]["resident_kib"] + 4096, used


def fifty_volumes_come_and_go_for_long():
    fifty_volumes_come_and_go(rounds=20)


# Each is an entry of ctest.
GROUPS = {
    "calls": [five_volumes_live_and_go_side_by_side, calls_can_be_repeated, wrong_calls_touch_nothing,
              a_mount_that_fails_says_why_and_leaves_nothing, an_update_is_taken_whole_or_not_at_all,
              a_dead_process_comes_back, the_daemon_can_go_and_come_back, a_second_daemon_is_refused,
              others_get_to_the_mount_point, old_markers_become_tombstones, markers_in_old_containers_become_tombstones_once,
              a_mount_that_others_serve_is_left_to_them, the_command_line_does_the_same, limits_are_in_force,
              fifty_volumes_come_and_go],
    "drains": [a_reboot_brings_volumes_back_and_drains_on, a_mount_while_it_drains_is_refused,
               what_cannot_be_archived_is_set_aside_and_comes_back, a_volume_that_cannot_be_asked_is_judged_and_kept],
    "slow_drain": [a_drain_that_is_slow_is_not_given_up],
    "crashes": [a_crash_at_any_step_of_a_mount_leaves_nothing, a_crash_at_any_step_of_a_delete_loses_nothing,
                a_crash_in_an_update_keeps_the_old_configuration],
    "long": [fifty_volumes_come_and_go_for_long],
}

if __name__ == "__main__":
    names = [test.__name__ for word in sys.argv[1:] for test in GROUPS.get(word, [])]
    sys.argv[1:] = names + [word for word in sys.argv[1:] if word not in GROUPS]
    main([test for name, group in GROUPS.items() if name != "long" or names for test in group])
