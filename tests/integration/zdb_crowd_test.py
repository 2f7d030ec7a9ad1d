#!/usr/bin/env python3
"""qsfs-zdb under a crowd: 10,000 connections, half-sent requests, clients that do not read. Its memory stays bounded, and
a client that behaves is served all the while."""
import contextlib
import os
import pathlib
import resource
import shutil
import socket
import tempfile
import time

from harness import Server, main, wait_until

CROWD = 10_000
MIB = 1 << 20
MEMORY_MIB = 64  # For requests and replies of all clients.
# What one connection may always have (zdb/connection.h says 64 KiB), and what the server itself needs.
PER_CLIENT_KIB = 64
BASE_KIB = 64 * 1024


@contextlib.contextmanager
def crowded():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CROWD + 200:
        print(f"only {hard} files may be open: fewer connections")
    crowd = min(CROWD, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, crowd + 200), hard))
    home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-zdb-crowd-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    server = Server(home / "data", "--max-connections", str(crowd + 50), "--memory", str(MEMORY_MIB))
    clients = []
    try:
        yield server, crowd, clients
    finally:
        for client in clients:
            client.close()
        server.end()
        shutil.rmtree(home)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(server):
    host, _, port = server.address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    return client


def ask(client, request, reply):
    client.sendall(request)
    got = b""
    while len(got) < len(reply):
        piece = client.recv(len(reply) - len(got))
        assert piece, got
        got += piece
    assert got == reply, got


def resident_kib(server):
    for line in pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def is_served(client, number):
    """One that behaves, in the middle of it all."""
    begin = time.monotonic()
    ask(client, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$6\r\n%06d\r\n" % number, b"$3\r\nkey\r\n")
    ask(client, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", b"$6\r\n%06d\r\n" % number)
    return time.monotonic() - begin


def ten_thousand_connections():
    with crowded() as (server, crowd, clients):
        before = resident_kib(server)
        clients += [connect(server) for _ in range(crowd)]
        for client in clients[::7]:
            ask(client, b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n")
        took = is_served(clients[-1], 1)
        used = resident_kib(server) - before
        print(f"{crowd} connections: {used / crowd:.1f} KiB each; SET and GET among them took {1000 * took:.1f} ms")
        assert used < crowd * 8, used
        # One too many is told so.
        clients += [connect(server) for _ in range(50)]
        extra = connect(server)
        clients.append(extra)
        extra.settimeout(60)
        assert extra.recv(100) == b"-Too many connections\r\n"
        for client in clients:
            client.close()
        clients.clear()
        fresh = []

        def answers_again():
            fresh.append(connect(server))
            clients.append(fresh[-1])
            fresh[-1].sendall(b"*1\r\n$4\r\nPING\r\n")
            with contextlib.suppress(ConnectionError):
                return fresh[-1].recv(7) == b"+PONG\r\n"
            return False

        wait_until("their places are free", answers_again)


def half_sent_requests_hold_little():
    with crowded() as (server, crowd, clients):
        friend = connect(server)
        clients.append(friend)
        before = resident_kib(server)
        announced = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$%d\r\n" % (8 * MIB)
        # A value of 8 MiB each is announced, and 4 KiB of it sent.
        for _ in range(min(crowd, 4000)):
            client = connect(server)
            clients.append(client)
            client.sendall(announced + bytes(4096))
        for number in range(20):
            is_served(friend, number)
        used = resident_kib(server) - before
        print(f"{len(clients)} half-sent requests of 8 MiB: {used / 1024:.0f} MiB")
        assert used < MEMORY_MIB * 1024 + len(clients) * PER_CLIENT_KIB + BASE_KIB, used


def clients_that_do_not_read_hold_little():
    with crowded() as (server, _, clients):
        friend = connect(server)
        clients.append(friend)
        value = bytes(4 * MIB)
        ask(friend, b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n%s\r\n" % (len(value), value), b"$3\r\nbig\r\n")
        before = resident_kib(server)
        # 300 clients want 40 MiB each, and take nothing.
        for _ in range(300):
            client = connect(server)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            clients.append(client)
            client.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n" * 10)
        for number in range(50):
            is_served(friend, number)
        used = resident_kib(server) - before
        print(f"300 clients that do not read: {used / 1024:.0f} MiB")
        assert used < MEMORY_MIB * 1024 + 300 * PER_CLIENT_KIB + BASE_KIB, used


if __name__ == "__main__":
    main([ten_thousand_connections, half_sent_requests_hold_little, clients_that_do_not_read_hold_little])
