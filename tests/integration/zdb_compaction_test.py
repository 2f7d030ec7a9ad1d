#!/usr/bin/env python3
"""qsfs-zdb gives the space of replaced values back, and is killed at every step of that."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ["QSFS_BIN"])
PATIENCE_S = 60
KEYS = 10
VALUE_LEN = 256 * 1024
STEPS = ["merge_written", "merge_data_renamed", "merge_index_renamed", "merge_committed"]


class Server:
    def __init__(self, data, failpoint=None):
        environment = dict(os.environ)
        if failpoint is not None:
            environment["QSFS_FAILPOINT"] = failpoint
        command = [BIN / "qsfs-zdb", "--data", data, "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        port = int(line.strip().rpartition(":")[2])
        self.client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.replies = self.client.makefile("rb")

    def call(self, *words):
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%s\r\n" % (len(word), word)
        self.client.sendall(request)
        head = self.replies.readline()
        if not head.startswith(b"$") or head == b"$-1\r\n":
            return head.strip()
        return self.replies.read(int(head[1:]) + 2)[:-2]

    def fields(self):
        text = self.call(b"NSINFO", b"default").decode()
        return dict(line.split(": ") for line in text.splitlines() if ": " in line)

    def end(self):
        self.client.close()
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def value(number):
    return (b"%08d" % number) * (VALUE_LEN // 8)


def overwrite(server):
    """Ten times as much as is live in the end."""
    for number in range(10 * KEYS):
        assert server.call(b"SET", b"key%d" % (number % KEYS), value(number)) != b"$-1"


def check(server):
    for number in range(9 * KEYS, 10 * KEYS):
        assert server.call(b"GET", b"key%d" % (number % KEYS)) == value(number), number


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def gives_space_back(data):
    server = Server(data)
    overwrite(server)
    wait_for(lambda: int(server.fields()["compactions"]) > 0, "nothing was compacted")
    check(server)
    fields = server.fields()
    assert int(fields["data_files_bytes"]) < 3 * KEYS * VALUE_LEN, fields
    assert server.end() == 0


def survives_death_at(step, data):
    server = Server(data, failpoint=f"zdb.{step}")
    overwrite(server)
    assert server.process.wait(PATIENCE_S) == -9, step
    server = Server(data)
    check(server)
    assert server.end() == 0
    subprocess.run([BIN / "qsfs-zdb", "--check", data], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([BIN / "qsfs-zdb", "--repair", data], check=True, stdout=subprocess.DEVNULL)
    server = Server(data)
    wait_for(lambda: int(server.fields()["data_files_bytes"]) < 3 * KEYS * VALUE_LEN, step)
    check(server)
    assert server.end() == 0


def main():
    with tempfile.TemporaryDirectory(prefix="qsfs-zdb-compaction-") as home:
        gives_space_back(f"{home}/plain")
        for step in STEPS:
            survives_death_at(step, f"{home}/{step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
