#!/usr/bin/env python3
"""Python's redis client (Debian's python3-redis) with qsfs-zdb: calls, pipelines, pools, reconnects."""
import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
import threading

from harness import Server, main

try:
    import redis
except ImportError:
    print("skipped: python3-redis is not installed")
    sys.exit(1 if os.environ.get("CI") == "true" else 77)


@contextlib.contextmanager
def served(*flags):
    home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-zdb-py-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    server = Server(home / "data", *flags)
    try:
        yield server
    finally:
        server.end()
        shutil.rmtree(home)


def client(server, **options):
    made = redis.Redis(host="127.0.0.1", port=int(server.address.rpartition(":")[2]), socket_timeout=60, **options)
    # A SET answers with the key here, and not with OK: replies are wanted as they are.
    made.response_callbacks.clear()
    return made


def calls_and_types():
    with served() as server:
        zdb = client(server)
        assert zdb.ping() == b"PONG"
        value = bytes(range(256)) * 40
        assert zdb.execute_command("SET", "key", value) == b"key"
        assert zdb.get("key") == value and zdb.get("other") is None
        assert zdb.execute_command("SET", "key", value) is None  # The same is there already.
        assert zdb.execute_command("EXISTS", "key") == 1 and zdb.execute_command("LENGTH", "key") == len(value)
        assert zdb.execute_command("MGET", "key", "other") == [value, None]
        assert zdb.execute_command("DBSIZE") == 1
        assert b"0-db" in zdb.execute_command("INFO")
        assert zdb.execute_command("HOOKS") == []
        cursor, page = zdb.execute_command("SCAN")
        assert len(cursor) == 17 and page[0][:2] == [b"key", len(value)]
        try:
            zdb.execute_command("FLUSHALL")
            raise AssertionError("FLUSHALL was taken")
        except redis.exceptions.ResponseError as error:
            assert "not supported" in str(error), error
        assert zdb.execute_command("DEL", "key") == b"OK"


def pipelines_of_thousands():
    with served() as server:
        zdb = client(server)
        pipeline = zdb.pipeline(transaction=False)
        pipeline.response_callbacks = {}
        for i in range(5000):
            pipeline.execute_command("SET", f"key{i}", os.urandom(8) + b"v" * (i % 3000))
        assert pipeline.execute() == [b"key%d" % i for i in range(5000)]
        for i in range(5000):
            pipeline.execute_command("LENGTH", f"key{i}")
        assert pipeline.execute() == [8 + i % 3000 for i in range(5000)]


def a_pool_of_threads():
    with served() as server:
        zdb = client(server, max_connections=16)
        failed = []

        def work(number):
            for i in range(200):
                value = f"{number}-{i}".encode() * 50
                if zdb.execute_command("SET", f"{number}/{i}", value) is None or zdb.get(f"{number}/{i}") != value:
                    failed.append((number, i))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed and zdb.execute_command("DBSIZE") == 3200, failed


def reconnects_after_a_restart():
    with served() as server:
        zdb = client(server, retry_on_error=[redis.exceptions.ConnectionError], retry_on_timeout=True)
        assert zdb.execute_command("SET", "key", "value") == b"key"
        server.kill()
        server.process.stdout.close()
        server.start()
        assert zdb.get("key") == b"value"


def namespaces_and_passwords():
    with served("--admin", "secret") as server:
        admin = client(server, single_connection_client=True)
        assert admin.execute_command("AUTH", "secret") == b"OK"
        assert admin.execute_command("NSNEW", "private") == b"OK"
        assert admin.execute_command("NSSET", "private", "password", "word") == b"OK"
        assert admin.execute_command("NSSET", "private", "public", "0") == b"OK"
        user = client(server, single_connection_client=True)
        try:
            user.execute_command("SELECT", "private", "wrong")
            raise AssertionError("a wrong password was taken")
        except redis.exceptions.ResponseError:
            pass
        assert user.execute_command("SELECT", "private", "word") == b"OK"
        assert user.execute_command("SET", "key", "value") == b"key"


if __name__ == "__main__":
    main([calls_and_types, pipelines_of_thousands, a_pool_of_threads, reconnects_after_a_restart, namespaces_and_passwords])
