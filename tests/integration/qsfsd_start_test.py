#!/usr/bin/env python3
"""qsfsd with volumes that start and drain slowly, and what their processes see of each other's mounts."""
import contextlib
import os
import pathlib
import subprocess
import threading
import time

from harness import BIN, Server, main, run, wait_until
from qsfsd_harness import MIB, Daemon, mounts_under
from slow_link import SlowLink

SEGMENTS = 14


@contextlib.contextmanager
def served(daemon, name, data=3, meta=3):
    """A workload on real servers, each behind a link of its own: (workload, links)."""
    servers = [Server(daemon.home / f"zdb{i}") for i in range(data + meta)]
    links = [SlowLink(server.address) for server in servers]
    backends = [{"address": link.address, "namespace": "default", "password": ""} for link in links]
    workload = daemon.workload(name, groups=[{"backends": [backend]} for backend in backends[:data]])
    workload["config"]["meta"]["config"]["backends"] = backends[data:]
    try:
        yield workload, links
    finally:
        daemon.crash_everything()
        for link in links:
            link.end()
        for server in servers:
            server.end()


def put(daemon, name, workload):
    status, answer = daemon.call("PUT", f"/volumes/{name}", workload)
    assert status == 200, (status, answer, daemon.log_tail())
    return pathlib.Path(answer["path"])


def lost(daemon, name):
    """The volume as it is on a machine that has never had it: only the backends know."""
    daemon.delete_and_wait(name)
    assert daemon.remainders() == [], daemon.remainders()


def a_recovery_that_makes_progress_is_not_cut_off():
    with Daemon("--mount-timeout", "10s").start() as daemon, served(daemon, "a") as (workload, links):
        path = put(daemon, "a", workload)
        for i in range(SEGMENTS):
            (path / f"file{i}").write_bytes(os.urandom(1000))
            run(BIN / "qsfs", "sync", "--remote", path)
        lost(daemon, "a")
        for link in links:
            link.delay = 0.5
        begin = time.monotonic()
        path = put(daemon, "a", workload)
        took = time.monotonic() - begin
        assert took > 10, f"it took {took:.1f} s, so that nothing was shown"
        for link in links:
            link.delay = 0
        assert len(os.listdir(path)) == SEGMENTS
        said = (daemon.root / "volumes" / "a" / "output").read_text()
        assert "recovering: journals" in said, said


def a_recovery_that_hangs_is_cut_off():
    with Daemon("--mount-timeout", "6s").start() as daemon, served(daemon, "a") as (workload, links):
        path = put(daemon, "a", workload)
        (path / "file").write_bytes(os.urandom(1000))
        lost(daemon, "a")
        for link in links:
            link.delay = 10_000
        status, answer = daemon.call("PUT", "/volumes/a", workload)
        assert status in (503, 504), (status, answer)
        daemon.wait_gone("a")
        assert daemon.remainders() == [], daemon.remainders()


def instead_of_qsfs_fs(daemon, script):
    """Volumes are served by a shell script, which never mounts."""
    path = daemon.home / "script"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    at = daemon.flags.index("--qsfs-fs") + 1
    daemon.flags = (*daemon.flags[:at], path, *daemon.flags[at + 1:])


def the_same_progress_twice_is_none():
    with Daemon("--mount-timeout", "6s") as daemon:
        instead_of_qsfs_fs(daemon, "while :; do echo 'recovering: journals 3' >&2; sleep 0.2; done\n")
        daemon.start()
        status, answer = daemon.call("PUT", "/volumes/a", daemon.workload("a"))
        assert status in (503, 504), (status, answer)
        daemon.wait_gone("a")
        assert daemon.remainders() == [], daemon.remainders()


def a_delete_ends_a_start_that_goes_on_and_on():
    with Daemon("--mount-timeout", "600s") as daemon:
        instead_of_qsfs_fs(daemon, "i=0\nwhile :; do i=$((i+1)); echo \"recovering: journals $i\" >&2; sleep 0.2; done\n")
        daemon.start()
        answers = []
        caller = threading.Thread(target=lambda: answers.append(daemon.call("PUT", "/volumes/a", daemon.workload("a"))))
        caller.start()
        wait_until("it starts", lambda: daemon.show("a").get("phase") == "mounting")
        daemon.delete("a")
        caller.join()
        assert answers[0][0] == 409 and "deleted" in answers[0][1]["error"], answers
        daemon.wait_gone("a")
        assert daemon.remainders() == [], daemon.remainders()


def a_drain_over_a_slow_link_is_not_given_up():
    """Less than the seed's 100 MiB in every period, for many periods; and a restart of the daemon in the middle."""
    content = os.urandom(3 * MIB)
    flags = ("--cleanup-period", "200ms", "--cleanup-failures", "2", "--cleanup-upload-min", "100MiB")
    with Daemon(*flags).start() as daemon, served(daemon, "a") as (workload, links):
        path = put(daemon, "a", workload)
        for link in links:
            link.rate = MIB // 10
        (path / "file").write_bytes(content)
        daemon.delete("a")
        wait_until("it drains", lambda: sum(link.sent for link in links) > MIB // 2)
        assert daemon.show("a")["phase"] == "draining"
        daemon.kill()
        daemon.start()
        wait_until("it drains on", lambda: sum(link.sent for link in links) > 2 * MIB)
        daemon.wait_gone("a")
        assert daemon.remainders() == [], daemon.remainders()
        for link in links:
            link.rate = 0
        assert (put(daemon, "a", workload) / "file").read_bytes() == content


def mounts_seen_by(pid):
    return [line.split()[4] for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def a_volumes_process_has_mounts_of_its_own():
    with Daemon() as daemon:
        outside = daemon.home / "outside"
        outside.mkdir()
        run("mount", "--bind", outside, outside)
        try:
            run("mount", "--make-shared", outside)
            daemon.start()
            path = daemon.mount("a")
            pid = daemon.show("a")["pid"]
            assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
            # Slave in: what the machine mounts is there.
            (outside / "later").mkdir()
            run("mount", "-t", "tmpfs", "none", outside / "later")
            assert str(outside / "later") in mounts_seen_by(pid)
            run("umount", outside / "later")
            assert str(outside / "later") not in mounts_seen_by(pid)
            # And nothing but the volume comes out.
            (outside / "inner").mkdir()
            run("nsenter", "-t", pid, "-m", "mount", "-t", "tmpfs", "none", outside / "inner")
            assert str(outside / "inner") in mounts_seen_by(pid)
            assert str(outside / "inner") not in mounts_seen_by(os.getpid())
            assert [kind for point, kind in mounts_under(daemon.root) if point == str(path)][1:] == ["fuse.qsfs"]
            # Shared out also means that it goes everywhere when it goes.
            daemon.mount("b")
            assert str(path) in mounts_seen_by(daemon.show("b")["pid"])
            daemon.delete_and_wait("a")
            assert str(path) not in mounts_seen_by(daemon.show("b")["pid"])
            daemon.delete_and_wait("b")
            assert daemon.remainders() == [], daemon.remainders()
        finally:
            subprocess.run(["umount", "-R", outside], check=False)


TESTS = [a_recovery_that_makes_progress_is_not_cut_off, a_recovery_that_hangs_is_cut_off,
         the_same_progress_twice_is_none, a_delete_ends_a_start_that_goes_on_and_on,
         a_drain_over_a_slow_link_is_not_given_up, a_volumes_process_has_mounts_of_its_own]

if __name__ == "__main__":
    main(TESTS)
