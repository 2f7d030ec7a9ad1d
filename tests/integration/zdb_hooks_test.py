#!/usr/bin/env python3
"""qsfs-zdb --hook and --metrics, with the real program."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import urllib.request

from harness import BIN, Server, main, run, wait_until


@contextlib.contextmanager
def home():
    made = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-zdb-hooks-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def hook_in(directory, script):
    path = directory / "hook"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o700)
    return path


def ask(server, *words):
    return run("redis-cli", "-p", server.address.rpartition(":")[2], *words).stdout.strip()


def a_program_is_told_of_a_whole_life():
    with home() as directory:
        told = directory / "told"
        hook = hook_in(directory, f'printf "%s," "$@" >> {told}\necho >> {told}\n')
        server = Server(directory / "data", "--hook", str(hook))
        try:
            assert ask(server, "NSNEW", "space") == "OK"
            assert ask(server, "SET", "key", "value") == "key"
            assert ask(server, "NSJUMP") == "OK"
            wait_until("it was told", lambda: "jump-data," in told.read_text())
            listed = ask(server, "HOOKS")
            assert "namespaces-init" in listed and "jump-index" in listed, listed
        finally:
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) == 0
            server.process.stdout.close()
        lines = [line.split(",")[:-1] for line in told.read_text().splitlines()]
        data = str(directory / "data")
        assert lines[0] == ["namespaces-init", "tcp://127.0.0.1:0", data, data], lines
        assert lines[1][0] == "ready", lines
        events = [line[0] for line in lines]
        # Two that run side by side may write in either order.
        assert sorted(events[2:]) == ["close", "jump-data", "jump-index", "namespace-closing", "namespace-closing",
                                      "namespace-created"], events
        jump = next(line for line in lines if line[0] == "jump-data")
        assert pathlib.Path(jump[2]).exists() and pathlib.Path(jump[3]).exists(), jump


def a_start_that_the_program_refuses_is_none():
    with home() as directory:
        for event in ("namespaces-init", "ready"):
            hook = hook_in(directory, f'[ "$1" != {event} ]\n')
            done = subprocess.run([BIN / "qsfs-zdb", "--data", directory / "data", "--listen", "127.0.0.1:0", "--hook", hook],
                                  capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1 and event in done.stderr and "listening" not in done.stdout, done
        done = subprocess.run([BIN / "qsfs-zdb", "--data", directory / "data", "--hook", directory / "none"],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "cannot be executed" in done.stderr, done


def a_hook_that_hangs_holds_nobody_up():
    with home() as directory:
        pids = directory / "pids"
        hook = hook_in(directory, f"case $1 in namespace-*) echo $$ >> {pids}; exec sleep 600 ;; esac\n")
        server = Server(directory / "data", "--hook", str(hook))
        try:
            for i in range(20):
                assert ask(server, "NSNEW", f"space{i}") == "OK"
            wait_until("four run", lambda: pids.exists() and len(pids.read_text().split()) == 4)
            assert ask(server, "PING") == "PONG"
        finally:
            server.process.kill()
            server.process.wait()
            server.process.stdout.close()
            for pid in pids.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def metrics_are_served():
    with home() as directory:
        server = Server(directory / "data", "--metrics", "127.0.0.1:0")
        try:
            port = server.process.stdout.readline().removeprefix("metrics on port ").strip()
            assert ask(server, "SET", "key", "value") == "key"
            text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
            assert 'qsfs_zdb_commands_total{command="SET"} 1' in text, text
            assert 'qsfs_zdb_data_bytes{namespace="default"} 5' in text, text
            names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
            assert len(names) == len(set(names)), "a metric is described twice"
        finally:
            server.end()


if __name__ == "__main__":
    main([a_program_is_told_of_a_whole_life, a_start_that_the_program_refuses_is_none, a_hook_that_hangs_holds_nobody_up,
          metrics_are_served])
