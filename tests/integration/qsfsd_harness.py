"""A real qsfsd with real volumes: what its tests share."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from harness import BIN, is_zombie, wait_until

QSFS_FS = pathlib.Path(os.environ.get("QSFS_FS", BIN / "qsfs-fs"))
KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
MIB = 1 << 20


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("qsfsd", timeout=120)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self.path)


def mounts_under(directory):
    """(mount point, type) of everything that is mounted in a directory, lowest first."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        if words[4].startswith(str(directory) + "/"):
            found.append((words[4], words[words.index("-") + 1]))
    return found


def processes_of(directory):
    """Numbers of the running processes whose command line names the directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            is_volume = words[0].endswith(b"qsfs-fs") or words[0] == b"qsfs-fs"
            if is_volume and any(word.startswith(os.fsencode(directory)) for word in words) and not is_zombie(entry.name):
                found.append(int(entry.name))
    return found


class Daemon:
    """One root directory, and the qsfsd that serves it."""

    def __init__(self, *flags):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="qsfsd-it-", dir=os.environ.get("TMPDIR", "/var/tmp"))).resolve()
        self.root = self.home / "root"
        self.flags = ("--no-network", "--qsfs-fs", QSFS_FS, "--cgroup", f"qsfs-it-{os.getpid()}", *flags)
        self.process = None
        self.environment = {}

    def start(self, failpoint=None, check=True):
        environment = {**os.environ, **self.environment}
        if failpoint:
            environment["QSFS_FAILPOINT"] = failpoint
        self.log = open(self.home / "qsfsd.log", "ab")
        self.process = subprocess.Popen([BIN / "qsfsd", "--root", self.root, *self.flags], env=environment,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        assert not check or line.startswith("listening on "), line + self.log_tail()
        return self

    def log_tail(self):
        return "\n".join((self.home / "qsfsd.log").read_text().splitlines()[-30:])

    def wait_dead(self):
        self.process.wait(timeout=120)
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def stop(self):
        self.process.terminate()
        self.wait_dead()

    def kill(self):
        self.process.kill()
        self.wait_dead()

    def call(self, method, path, body=None):
        connection = UnixConnection(self.root / "qsfsd.sock")
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, (json.loads(text) if text.startswith(("{", "[")) else text)
        finally:
            connection.close()

    def backends(self, name, count=3):
        return [{"address": f"dir:{self.home}/backends/{name}-{i}", "namespace": "default", "password": ""}
                for i in range(count)]

    def workload(self, name, cache=256 * MIB, **changes):
        return {"cache": cache, "config": {
            "minimal_shards": 2, "expected_shards": 3, "redundant_groups": 0, "redundant_nodes": 0,
            "max_zdb_data_dir_size": 64,
            "encryption": {"algorithm": "AES", "key": KEY},
            "meta": {"type": "zdb", "config": {"prefix": name, "encryption": {"algorithm": "AES", "key": KEY},
                                               "backends": self.backends(name + "-meta", 3)}},
            "groups": [{"backends": [backend]} for backend in self.backends(name)],
            "compression": {"algorithm": "snappy"}, **changes}}

    def mount(self, name, **changes):
        status, answer = self.call("PUT", f"/volumes/{name}", self.workload(name, **changes))
        assert status == 200, (status, answer, self.log_tail())
        return pathlib.Path(answer["path"])

    def show(self, name):
        return self.call("GET", f"/volumes/{name}")[1]

    def delete(self, name):
        status, answer = self.call("DELETE", f"/volumes/{name}")
        assert status == 200, (status, answer)

    def delete_and_wait(self, name):
        self.delete(name)
        self.wait_gone(name)

    def wait_gone(self, name):
        wait_until(f"{name} is gone", lambda: self.call("GET", f"/volumes/{name}")[0] == 404)

    def wait_running(self, name):
        wait_until(f"{name} runs", lambda: self.show(name).get("running"))

    def usage(self):
        """What the daemon holds."""
        own = pathlib.Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (own / "status").read_text().splitlines())
        return {"resident_kib": int(status["VmRSS"].split()[0]), "threads": len(list((own / "task").iterdir())),
                "files": len(list((own / "fd").iterdir()))}

    def together(self, names, run):
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(names)) as pool:
            return list(pool.map(run, names))

    def remainders(self):
        """Everything of volumes that is left: paths, mounts, processes."""
        found = [str(path) for part in ("mounts", "tombstones", "volumes", "undrained")
                 for path in (self.root / part).iterdir()]
        return found + mounts_under(self.root) + processes_of(self.root)

    def crash_everything(self):
        """As a reboot does it: processes and mounts go, the disk stays."""
        if self.process is not None:
            self.kill()
        for pid in processes_of(self.root):
            os.kill(pid, signal.SIGKILL)
        wait_until("no process is left", lambda: not processes_of(self.root))
        while mounts_under(self.root):
            subprocess.run(["umount", "-l", mounts_under(self.root)[-1][0]], check=False)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None and (self.home / "qsfsd.log").exists():
            print("---- qsfsd.log\n" + self.log_tail(), file=sys.stderr)
        self.crash_everything()
        for controller in pathlib.Path("/sys/fs/cgroup").glob(f"*/qsfs-it-{os.getpid()}"):
            with contextlib.suppress(OSError):
                for group in controller.iterdir():
                    if group.is_dir():
                        group.rmdir()
                controller.rmdir()
        shutil.rmtree(self.home, ignore_errors=True)
