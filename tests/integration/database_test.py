#!/usr/bin/env python3
"""Databases on the mount, killed together with it under transactions: what they committed is there."""
import contextlib
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

from harness import World, main, run, wait_until

ROUNDS = 30 if os.environ.get("QSFS_LONG") == "1" else 2
CONFIG = "archive.segment_size = \"8 MiB\"\nvolume.rotate_seconds = 1"

SQLITE_CLIENT = """
import sqlite3, sys
path, mode, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
database = sqlite3.connect(path, isolation_level=None)
database.execute(f"pragma journal_mode = {mode}")
database.execute("pragma synchronous = full")
database.execute("create table if not exists t (n integer primary key, v blob)")
number = first
while True:
    database.execute("begin immediate")
    database.execute("insert into t values (?, randomblob(?))", (number, 100 + number * 37 % 9000))
    if number > 20:
        database.execute("update t set v = randomblob(500) where n = ?", (number - 20,))
    database.execute("commit")
    print(number, flush=True)
    number += 1
"""


class Client:
    """A process that prints the number of each transaction that was committed."""

    def __init__(self, words, **options):
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, **options)
        self.committed = 0
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.committed = int(line)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


def sqlite_keeps_what_it_committed(mode):
    rng = random.Random(mode)
    with World(data=3, meta=1, k=2, n=3, extra_config=CONFIG) as world:
        world.mount()
        path = world.mount_point / "db.sqlite"
        last = 0
        for _ in range(ROUNDS):
            client = Client([sys.executable, "-c", SQLITE_CLIENT, path, mode, last + 1])
            try:
                wait_until("transactions", lambda: client.committed > last + 5)
                threading.Event().wait(rng.uniform(0, 0.7))
                world.kill()
            finally:
                client.kill()
            world.mount()
            with contextlib.closing(sqlite3.connect(path)) as database:
                assert database.execute("pragma integrity_check").fetchone() == ("ok",)
                numbers = [row[0] for row in database.execute("select n from t order by n")]
            # The one in flight may have made it.
            assert numbers in (list(range(1, client.committed + 1)), list(range(1, client.committed + 2))), \
                f"committed {client.committed}, there are {len(numbers)} up to {numbers[-1:]}"
            last = len(numbers)


def sqlite_with_a_write_ahead_log():
    sqlite_keeps_what_it_committed("wal")


def sqlite_with_a_rollback_journal():
    sqlite_keeps_what_it_committed("delete")


def postgres_programs():
    found = sorted(str(path) for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


class Postgres:
    """A cluster on the mount; runs as the user `postgres`, as it insists."""

    def __init__(self, programs, home):
        self.programs, self.data, self.sockets = programs, home / "pg", home / "pg-sockets"

    def run_as(self, *words, **options):
        return run("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *words, **options)

    def init(self):
        for directory in (self.data, self.sockets):
            directory.mkdir()
            shutil.chown(directory, "postgres", "postgres")
            directory.chmod(0o700)
        self.run_as(f"{self.programs}/initdb", "-D", self.data, "-A", "trust", "--no-locale", "-E", "UTF8")

    def start(self):
        self.process = subprocess.Popen(
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--",
             f"{self.programs}/postgres", "-D", str(self.data), "-k", str(self.sockets), "-c", "listen_addresses=",
             "-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until("the database answers", lambda: self.sql("select 1", check=False).returncode == 0)

    def sql(self, text, check=True):
        return self.run_as(f"{self.programs}/psql", "-h", self.sockets, "-d", "postgres", "-Atqc", text, check=check)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # Its children made sessions of their own.
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def children(self):
        done = run("ps", "-o", "pid=", "--ppid", self.process.pid, check=False)
        return [int(pid) for pid in done.stdout.split()]


POSTGRES_LOOP = """
i=$1
while :; do
  echo "insert into t values ($i, repeat('v', $((i % 3000)))); select $i;"
  i=$((i + 1))
done
"""


def postgres_keeps_what_it_committed():
    programs = postgres_programs()
    if programs is None:
        print("SKIPPED postgres_keeps_what_it_committed: no PostgreSQL here (Debian: apt-get install postgresql-15)",
              flush=True)
        sys.exit(77)
    rng = random.Random(1)
    with World(data=3, meta=1, k=2, n=3, extra_config=CONFIG) as world:
        world.home.chmod(0o755)
        world.mount("-o", "allow_other")
        database = Postgres(programs, world.mount_point)
        database.sockets = world.home / "pg-sockets"
        database.init()
        database.start()
        try:
            database.sql("create table t (n int primary key, v text)")
            last = 0
            for _ in range(ROUNDS):
                feeder = subprocess.Popen(["sh", "-c", POSTGRES_LOOP, "sh", str(last + 1)], stdout=subprocess.PIPE)
                client = Client(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--",
                                 f"{programs}/psql", "-h", database.sockets, "-d", "postgres", "-Atq"],
                                stdin=feeder.stdout)
                try:
                    wait_until("transactions", lambda: client.committed > last + 20)
                    threading.Event().wait(rng.uniform(0, 1))
                    world.kill()
                finally:
                    database.kill()
                    client.kill()
                    feeder.kill()
                    feeder.wait()
                    feeder.stdout.close()
                world.mount("-o", "allow_other")
                database.start()
                count = int(database.sql("select count(*) from t").stdout)
                top = int(database.sql("select coalesce(max(n), 0) from t").stdout)
                assert count == top and top in (client.committed, client.committed + 1), \
                    f"committed {client.committed}, there are {count} up to {top}"
                database.sql("reindex table t")
                last = top
        finally:
            database.kill()


if __name__ == "__main__":
    main([sqlite_with_a_write_ahead_log, sqlite_with_a_rollback_journal, postgres_keeps_what_it_committed])
