"""What the integration tests share: real servers, a real mount, and clean ends of both."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("QSFS_BIN", pathlib.Path(__file__).resolve().parents[2] / "build" / "dev" / "bin"))
DEADLINE = 120  # Seconds for anything that must happen.


def run(*words, check=True, **options):
    done = subprocess.run([str(word) for word in words], text=True, capture_output=True, timeout=DEADLINE, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: exit {done.returncode}: {done.stdout}{done.stderr}")
    return done


def wait_until(what, condition):
    """Polls, because what is waited for is another process's doing; fails loudly at the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}")
        time.sleep(0.02)


class Server:
    """A qsfs-zdb process on a port of its own."""

    def __init__(self, directory, *flags):
        self.directory = directory
        self.flags = flags
        self.listen = "127.0.0.1:0"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [BIN / "qsfs-zdb", "--data", self.directory, "--listen", self.listen, "--log-level", "warn", *self.flags],
            stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on "), line
        self.address = self.listen = line.removeprefix("listening on ")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        self.process.stdout.close()


class World:
    """Servers, a configuration, and one volume on them."""

    def __init__(self, data=6, meta=3, k=4, n=6, extra_config=""):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-it-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.mount_point = self.home / "mnt"
        self.mount_point.mkdir()
        self.data_dir = self.home / "local"
        self.config = self.home / "volume.toml"
        self.servers = []
        self.pid = None
        try:
            self.servers = [Server(self.home / f"zdb{i}") for i in range(data + meta)]
            self.data, self.meta = self.servers[:data], self.servers[data:]
            words = [BIN / "qsfs", "init", "--config", self.config, "--data-dir", self.data_dir, "--k", k, "--n", n]
            for server in self.data:
                words += ["--group", self.address_of(server)]
            words += ["--meta", ",".join(self.address_of(server) for server in self.meta)]
            run(*words)
            self.edit_config(extra_config)
        except BaseException:
            self.end()
            raise

    def address_of(self, server):
        """What the configuration says of it."""
        return server.address

    def edit_config(self, extra):
        """Each line "table.key = value" goes into that table; "key = value" to the top."""
        if not extra:
            return
        lines = self.config.read_text().splitlines()
        for line in filter(None, map(str.strip, extra.splitlines())):
            key, value = map(str.strip, line.split("=", 1))
            table, _, key = key.rpartition(".")
            if not table:
                lines = [kept for kept in lines if not kept.startswith(f"{key} =")]
                lines.insert(0, f"{key} = {value}")
                continue
            if f"[{table}]" not in lines:
                lines.append(f"[{table}]")
            at = lines.index(f"[{table}]")
            end = next((i for i in range(at + 1, len(lines)) if lines[i].startswith("[")), len(lines))
            body = [kept for kept in lines[at + 1:end] if not kept.startswith(f"{key} =")]
            lines[at + 1:end] = [f"{key} = {value}", *body]
        self.config.write_text("\n".join(lines) + "\n")

    def mount(self, *flags, data_dir=None, environment=None, transport=os.environ.get("QSFS_TEST_TRANSPORT")):
        if data_dir is not None:
            self.data_dir = data_dir
        if transport == "io_uring":
            flags = (*flags, "--io-uring")
        run(BIN / "qsfs-fs", "--config", self.config, "--data-dir", self.data_dir, *flags, self.mount_point,
            env={**os.environ, **(environment or {})})
        self.pid = self.status()["pid"]

    def status(self):
        done = run(BIN / "qsfs", "status", "--json", self.mount_point, check=False)
        assert done.returncode in (0, 3), done.stdout + done.stderr
        return json.loads(done.stdout)

    def metric(self, name):
        text = run(BIN / "qsfs", "stats", self.mount_point).stdout
        for line in text.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def sync_remote(self):
        run(BIN / "qsfs", "sync", "--remote", self.mount_point)

    def evict(self):
        run(BIN / "qsfs", "evict", self.mount_point)
        drop_caches()

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.detach()

    def detach(self):
        """The mount of a dead process: gone from the namespace once nothing serves it."""
        pid, self.pid = self.pid, None
        wait_until("the process is gone", lambda: not pathlib.Path(f"/proc/{pid}").exists() or is_zombie(pid))
        run("umount", "-l", self.mount_point, check=False)

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)
        pid, self.pid = self.pid, None
        wait_until("the process is gone", lambda: not pathlib.Path(f"/proc/{pid}").exists() or is_zombie(pid))
        assert not os.path.ismount(self.mount_point)

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
        # Whatever is there: a mount whose process died while it started does not look like one (ENOTCONN).
        run("umount", "-l", self.mount_point, check=False)
        for server in self.servers:
            server.end()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        log = self.data_dir / "qsfs-fs.log"
        if kind is not None and log.exists():
            print("---- qsfs-fs.log\n" + "\n".join(log.read_text().splitlines()[-40:]), file=sys.stderr)
        self.end()


def is_zombie(pid):
    """Dead, all of it: its first thread is a zombie before the others have ended, which hold its files and locks open."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def drop_caches():
    """What the kernel kept would answer in the volume's place."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n")


def main(tests):
    """Runs the tests (functions) whose names are given, or all; exits 77 (skipped) where mounting is impossible."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("skipped: needs root and /dev/fuse")
        sys.exit(1 if os.environ.get("CI") == "true" else 77)
    wanted = sys.argv[1:]
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok      {test.__name__}  {time.monotonic() - start:.1f} s", flush=True)
        except Exception as error:  # A failed test must not keep the others from running.
            failed += 1
            print(f"FAILED  {test.__name__}: {error!r}", flush=True)
            import traceback
            traceback.print_exc()
    sys.exit(1 if failed else 0)
