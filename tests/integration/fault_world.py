"""A mounted volume all of whose backends are behind fault proxies, and what the tests of faults ask of it."""
import concurrent.futures
import errno
import hashlib
import json
import mmap
import os
import pathlib
import shutil
import subprocess
import time

from fault_proxy import Fault, FaultProxy
from harness import BIN, World, run, wait_until
from heal_test import Resp

MIB = 1 << 20
# What a foreground read may take, and what a loaded machine may add to it.
READ_DEADLINE = 10
SLACK = 20
# Bounds that no backend may push the daemon over.
MEMORY_GROWTH_MAX = 96 * MIB
FILES_GROWTH_MAX = 64


class FaultWorld(World):
    """4 + 2 shards on 7 backends, so that 2 may break under a write (k + 1 are needed). Segments of 8 MiB; files are remembered by their digests."""

    def __init__(self, extra_config="", data=7, **options):
        self.proxies = {}
        self.digests = {}
        super().__init__(data=data, extra_config='archive.segment_size = "8 MiB"\narchive.scrub_interval = "0"\n' + extra_config,
                         **options)
        self.data_proxies = [self.proxies[id(server)] for server in self.data]
        self.meta_proxies = [self.proxies[id(server)] for server in self.meta]

    def address_of(self, server):
        proxy = FaultProxy(server.address, seed=len(self.proxies) + 1, remember=True)
        self.proxies[id(server)] = proxy
        return proxy.address

    def end(self):
        super().end()
        for proxy in self.proxies.values():
            proxy.end()

    # What happens.

    def write(self, name, mib):
        """Into the mount, synced to this disk. Backends have no part in it."""
        data = os.urandom(mib * MIB)
        start = time.monotonic()
        with open(self.mount_point / name, "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        took = time.monotonic() - start
        assert took < READ_DEADLINE + SLACK, f"a write of {mib} MiB took {took:.1f} s"
        self.digests[name] = hashlib.sha256(data).hexdigest()

    def read(self, *names):
        """Evicts and reads files (all); they are right, and none takes longer than its deadline."""
        self.evict()
        for name in names or self.digests:
            start = time.monotonic()
            digest = hashlib.sha256(read_directly(self.mount_point / name)).hexdigest()
            took = time.monotonic() - start
            assert digest == self.digests[name], f"{name} has other bytes"
            assert took < READ_DEADLINE + SLACK, f"{name} took {took:.1f} s"

    def read_fails(self, name):
        """Too few shards can be had: EIO, within the deadline; not other bytes, and not for ever."""
        start = time.monotonic()
        try:
            read_directly(self.mount_point / name)
        except OSError as error:
            assert error.errno == errno.EIO, error
        else:
            raise AssertionError(f"{name} was read without its shards")
        took = time.monotonic() - start
        assert took < READ_DEADLINE + SLACK, f"the error took {took:.1f} s"

    def break_data(self, count, *faults):
        """The same for the first `count` data backends; each has faults of its own, as they count."""
        for proxy in self.data_proxies[:count]:
            proxy.set(*(Fault(fault.kind, fault.commands, fault.probability, fault.count, **fault.options)
                        for fault in faults))

    def mend(self):
        for proxy in self.proxies.values():
            proxy.clear()

    def sync_remote_in_background(self):
        return subprocess.Popen([BIN / "qsfs", "sync", "--remote", self.mount_point], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    # What is seen.

    def row(self, server):
        address = self.proxies[id(server)].address
        return next(row for row in self.status()["backends"] if row["address"] == address)

    def ask_all(self):
        """Probes every backend now; by itself the daemon does so every 20 s."""
        run(BIN / "qsfs", "reload", self.mount_point)

    def wait_state(self, server, *states):
        wait_until(f"{' or '.join(states)} shows", lambda: self.row(server)["state"] in states or time.sleep(0.2))

    def wait_whole(self):
        def is_whole():
            status = self.status()
            return (status["objects"]["degraded"] == status["objects"]["lost"] == 0
                    and status["repair"]["state"] == "idle" and status["repair"]["backends_checking"] == 0)
        wait_until("all is whole", lambda: is_whole() or time.sleep(0.2))

    def wait_uptime(self, seconds):
        """Until the daemon has run for so much longer, by its own clock."""
        end = self.status()["uptime_seconds"] + seconds
        wait_until(f"{seconds} s have passed", lambda: self.status()["uptime_seconds"] > end or time.sleep(0.5))

    def check(self, *flags):
        done = run(BIN / "qsfs", "check", "--json", *flags, self.mount_point, check=False)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return json.loads(done.stdout)

    def stored_keys(self):
        """On the data backends, past the volume and the proxies."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return list(pool.map(lambda server: self.resp(server).keys(), self.data))

    def resp(self, server):
        return Resp(server, self.row(server)["namespace"])

    def nothing_is_doubled(self, lost_replies=0):
        """Every shard that a manifest names is there, and nothing else but what a lost reply may have left behind."""
        self.wait_whole()
        seen = {}

        def agrees():
            report = self.check("--read-data")
            seen.update(report, keys=sum(map(len, self.stored_keys())))
            return report["verdict"] == "ok" and 0 <= seen["keys"] - report["shards_checked"] <= lost_replies
        end = time.monotonic() + 60
        while not agrees():
            assert time.monotonic() < end, f"what is stored is not what is named: {seen}"
            time.sleep(0.5)

    def memory(self, which="VmRSS"):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(which + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {which}")

    def forget_memory_peak(self):
        """VmHWM begins anew."""
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5\n")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # What becomes of servers.

    def power_cut(self, servers, snapshots):
        """Each goes back to the directory that was kept, with a new instance id."""
        for server in servers:
            server.kill()
        for server in servers:
            shutil.rmtree(server.directory)
            shutil.copytree(snapshots[id(server)], server.directory)
        for server in servers:
            server.start()

    def snapshot(self, servers):
        """Copies of their directories, as they are when all is written."""
        kept = {}
        for server in servers:
            server.end()
            kept[id(server)] = pathlib.Path(str(server.directory) + "-kept")
            shutil.rmtree(kept[id(server)], ignore_errors=True)
            shutil.copytree(server.directory, kept[id(server)])
            server.start()
        return kept


def read_directly(path):
    """Past the kernel's pages: those that a read has left are not gone after drop_caches (seen on 6.18)."""
    content = bytearray()
    with mmap.mmap(-1, MIB) as buffer:
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            while (count := os.readv(file, [buffer])) > 0:
                content += buffer[:count]
        finally:
            os.close(file)
    return content
