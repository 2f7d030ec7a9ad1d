#!/usr/bin/env python3
"""A volume's process dies while qsfsd starts, drains or removes it: nothing leaks, and nothing is lost."""
import os
import signal

from harness import BIN, main, run, wait_until
from qsfsd_harness import QSFS_FS, Daemon, mounts_under, processes_of

FILE = os.urandom(1 << 20)
# On the way of a first start, of one that recovers, and of a drain.
FIRST_START = ["log.prepare.after_journal", "log.prepare.after_data"]
RECOVERY = ["recover.after_journal", "recover.before_flush", "recover.before_marker", "recover.before_marker_removed"]
DRAIN = ["archive.after_put", "archive.after_verify", "archive.before_manifest", "archive.after_manifest",
         "archive.after_watermark", "archive.after_head"]
BEHIND_WATERMARK = DRAIN[-2:]


class Dying(Daemon):
    """The next process of a volume dies at the failpoint that is asked for; those after it live."""

    def __init__(self, *flags):
        super().__init__(*flags)
        self.point = self.home / "failpoint"
        script = self.home / "qsfs-fs"
        script.write_text(f"#!/bin/sh\npoint=$(cat {self.point} 2>/dev/null)\nrm -f {self.point}\n"
                          f"QSFS_FAILPOINT=$point exec {QSFS_FS} \"$@\"\n")
        script.chmod(0o755)
        at = self.flags.index("--qsfs-fs") + 1
        self.flags = (*self.flags[:at], script, *self.flags[at + 1:])

    def next_dies_at(self, point):
        self.point.write_text(point)

    def was_reached(self):
        return not self.point.exists() and "signal 9" in (self.home / "qsfsd.log").read_text()


def fails_and_leaves_nothing(daemon, point):
    daemon.next_dies_at(point)
    status, answer = daemon.call("PUT", "/volumes/a", daemon.workload("a"))
    assert status == 503, (point, status, answer)
    daemon.wait_gone("a")
    assert daemon.remainders() == [], (point, daemon.remainders())


def a_death_while_it_starts_is_an_error_and_leaves_nothing():
    with Dying().start() as daemon:
        for point in FIRST_START:
            fails_and_leaves_nothing(daemon, point)
        path = daemon.mount("a")
        (path / "file").write_bytes(FILE)
        daemon.delete_and_wait("a")
        for point in RECOVERY:
            fails_and_leaves_nothing(daemon, point)
        assert (daemon.mount("a") / "file").read_bytes() == FILE


def self_inflicted(daemon):
    return (daemon.home / "qsfsd.log").read_text().count("died of signal 9")


def a_death_while_it_drains_is_only_a_delay():
    with Dying().start() as daemon:
        for point in DRAIN:
            deaths = self_inflicted(daemon)
            (daemon.mount("a") / point).write_bytes(FILE)
            daemon.next_dies_at(point)
            daemon.delete("a")
            daemon.wait_gone("a")
            assert not daemon.point.exists(), point
            # Behind the watermark everything is archived: the daemon may have heard so before the death, and not wait.
            assert self_inflicted(daemon) == deaths + 1 or point in BEHIND_WATERMARK, point
            assert daemon.remainders() == [], (point, daemon.remainders())
        path = daemon.mount("a")
        assert sorted(os.listdir(path)) == sorted(DRAIN)
        assert all((path / point).read_bytes() == FILE for point in DRAIN)


def a_death_at_each_restart_is_followed_by_another():
    """It comes back however often it dies, and the mount point never has a layer too many."""
    with Dying().start() as daemon:
        path = daemon.mount("a")
        (path / "file").write_bytes(FILE)
        run("sync", "-f", path)
        daemon.next_dies_at("log.replay.after_apply")
        os.kill(daemon.show("a")["pid"], signal.SIGKILL)
        wait_until("it has died again", daemon.was_reached)
        wait_until("it runs", lambda: daemon.show("a").get("running"))
        assert (path / "file").read_bytes() == FILE
        assert len(mounts_under(daemon.root)) == 2 and len(processes_of(daemon.root)) == 1


def the_daemon_and_its_volume_die_together_at_any_step():
    mount = ["directory", "state", "config", "network", "bound", "spawned", "answered"]
    delete = ["delete.tombstone", "delete.state", "drain.stopped", "drain.mounted", "drain.archived", "remove.process",
              "remove.unmounted", "remove.data", "remove.network"]
    with Daemon() as daemon:
        for step in [f"mount.{name}" for name in mount] + delete:
            daemon.start(failpoint=f"qsfsd.{step}")
            try:
                path = daemon.call("PUT", "/volumes/a", daemon.workload("a"))[1]["path"]
                with open(f"{path}/{step}", "wb") as file:
                    file.write(FILE)
                    os.fsync(file.fileno())
                daemon.call("DELETE", "/volumes/a")
            except OSError:
                pass
            daemon.wait_dead()
            for pid in processes_of(daemon.root):
                os.kill(pid, signal.SIGKILL)
            daemon.start()
            daemon.wait_gone("a")
            assert daemon.remainders() == [], (step, daemon.remainders())
            daemon.stop()
        daemon.start()
        path = daemon.mount("a")
        assert sorted(os.listdir(path)) == sorted(delete)
        assert all((path / step).read_bytes() == FILE for step in delete)
        assert run(BIN / "qsfs", "check", path, check=False).returncode == 0


TESTS = [a_death_while_it_starts_is_an_error_and_leaves_nothing, a_death_while_it_drains_is_only_a_delay,
         a_death_at_each_restart_is_followed_by_another, the_daemon_and_its_volume_die_together_at_any_step]

if __name__ == "__main__":
    main(TESTS)
