#!/usr/bin/env python3
"""qsfs-zdb as a program: redis-cli talks to it, it keeps its data over restarts and kills, and its
exit codes and messages are what the documentation says.

usage: zdb_redis_cli_test.py PATH_TO_QSFS_ZDB
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else "qsfs-zdb"
PATIENCE_S = 30


class Server:
    """A running qsfs-zdb; `addresses` are what it says it listens on."""

    def __init__(self, data, *flags):
        command = [PROGRAM, "--data", data, *flags]
        if "--listen" not in flags and "--socket" not in flags:
            command += ["--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.addresses = []
        for _ in range(("--listen" in command) + ("--socket" in command)):
            line = self.process.stdout.readline()
            if not line.startswith("listening on "):
                raise AssertionError(f"not ready: {line!r} {self.process.communicate()}")
            self.addresses.append(line.removeprefix("listening on ").strip())
        self.where = []
        if self.addresses[0].startswith("/"):
            self.where = ["-s", self.addresses[0]]
        else:
            self.where = ["-p", self.addresses[0].rpartition(":")[2]]

    def cli(self, *words, stdin=None, namespace=None):
        """What redis-cli prints, without the last line end."""
        command = ["redis-cli", *self.where]
        if namespace is not None:
            # Several commands on one connection, as the namespace is state of it.
            script = f"SELECT {namespace}\n" + " ".join(words) + "\n"
            done = subprocess.run(
                command, input=script, capture_output=True, text=True, timeout=PATIENCE_S
            )
            return done.stdout.partition("\n")[2].rstrip("\n")
        if stdin is not None:
            command.append("-x")
        done = subprocess.run(
            [*command, *words], input=stdin, capture_output=True, timeout=PATIENCE_S
        )
        return done.stdout.removesuffix(b"\n").decode("latin-1")

    def end(self, number):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@unittest.skipUnless(
    shutil.which("redis-cli") or os.environ.get("CI") == "true", "redis-cli is not installed"
)
class RedisCliTest(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="qsfs-zdb-cli-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.data = os.path.join(self.directory, "data")
        self.servers = []
        self.addCleanup(self.kill_all)

    def kill_all(self):
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.communicate()

    def start(self, *flags):
        server = Server(self.data, *flags)
        self.servers.append(server)
        return server

    def test_stores_and_reads(self):
        server = self.start()
        self.assertEqual(server.cli("PING"), "PONG")
        self.assertEqual(server.cli("SET", "key", "value"), "key")
        self.assertEqual(server.cli("GET", "key"), "value")
        self.assertEqual(server.cli("LENGTH", "key"), "5")
        self.assertEqual(server.cli("CHECK", "key"), "1")
        self.assertEqual(server.cli("DBSIZE"), "1")
        self.assertEqual(server.cli("DEL", "key"), "OK")
        self.assertEqual(server.cli("EXISTS", "key"), "0")
        self.assertIn("Command not supported", server.cli("FLUSHALL"))

    def test_keeps_large_binary_values(self):
        server = self.start()
        value = bytes(i * i % 251 for i in range(1 << 20))
        self.assertEqual(server.cli("SET", "key", stdin=value), "key")
        self.assertEqual(server.cli("GET", "key").encode("latin-1"), value)

    def test_keeps_data_over_a_clean_end(self):
        server = self.start()
        server.cli("NSNEW", "one")
        server.cli("NSSET", "one", "maxsize", "1000000")
        self.assertEqual(server.cli("SET", "key", "value", namespace="one"), "key")
        code, _, err = server.end(signal.SIGTERM)
        self.assertEqual((code, "error" in err), (0, False), err)
        server = self.start()
        self.assertEqual(server.cli("GET", "key", namespace="one"), "value")
        self.assertIn("data_limits_bytes: 1000000", server.cli("NSINFO", "one"))

    def test_keeps_acknowledged_data_over_a_kill(self):
        server = self.start("--sync", "never")
        for i in range(20):
            self.assertEqual(server.cli("SET", f"key{i}", f"value{i}"), f"key{i}")
        server.end(signal.SIGKILL)
        server = self.start()
        for i in range(20):
            self.assertEqual(server.cli("GET", f"key{i}"), f"value{i}")

    def test_tells_a_restart_by_its_instance_id(self):
        def instance_id(server):
            return [x for x in server.cli("INFO").splitlines() if x.startswith("instance_id: ")]

        server = self.start()
        first = instance_id(server)
        self.assertEqual(first, instance_id(server))
        self.assertEqual(server.end(signal.SIGINT)[0], 0)
        self.assertNotEqual(first, instance_id(self.start()))

    def test_counts_ids_in_sequential_mode(self):
        server = self.start("--mode", "seq")
        ids = [server.cli("SET", "", f"value{i}") for i in range(3)]
        self.assertEqual(ids, [chr(i) + "\0" * 7 for i in range(3)])
        self.assertIn("mode: sequential", server.cli("NSINFO", "default"))
        self.assertIn("single runtime mode", server.cli("NSSET", "default", "mode", "user"))

    def test_serves_a_socket_and_a_port_at_once(self):
        path = os.path.join(self.directory, "zdb.sock")
        server = self.start("--listen", "127.0.0.1:0", "--socket", path)
        self.assertEqual(server.addresses[1], path)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        server.cli("SET", "key", "value")
        server.where = ["-s", path]
        self.assertEqual(server.cli("GET", "key"), "value")
        self.assertEqual(server.end(signal.SIGTERM)[0], 0)
        self.assertFalse(os.path.exists(path))

    def test_takes_the_password_from_a_file(self):
        path = os.path.join(self.directory, "password")
        with open(path, "w", encoding="ascii") as file:
            file.write("s3cret\n")
        os.chmod(path, 0o600)
        server = self.start("--admin-file", path, "--log-level", "debug")
        self.assertIn("Permission denied", server.cli("NSNEW", "one"))
        self.assertIn("Access denied", server.cli("AUTH", "wrong"))
        dialogue = subprocess.run(
            ["redis-cli", *server.where],
            input="AUTH SECURE CHALLENGE\nAUTH s3cret\nNSNEW one\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        ).stdout.split()
        self.assertEqual(len(dialogue[0]), 16)
        self.assertEqual(dialogue[1:], ["OK", "OK"])
        _, out, err = server.end(signal.SIGTERM)
        self.assertNotIn("s3cret", out + err)

    def test_hides_the_password_from_the_process_list(self):
        for flags in (["--admin", "s3cret"], ["--admin=s3cret"]):
            server = self.start(*flags)
            with open(f"/proc/{server.process.pid}/cmdline", "rb") as file:
                self.assertNotIn(b"s3cret", file.read())
            self.assertIn("OK", server.cli("AUTH", "s3cret"))
            self.assertEqual(server.end(signal.SIGTERM)[0], 0)

    def test_walks_back_and_tells_the_past(self):
        server = self.start()
        for key in ("a", "b", "c"):
            server.cli("SET", key, "old" + key, "1500000000")
        server.cli("SET", "a", "new")
        self.assertEqual(server.cli("KEYTIME", "b"), "1500000000")
        keys = [line for line in server.cli("RSCAN").splitlines() if line in ("a", "b", "c")]
        self.assertEqual(keys, ["a", "c", "b"])
        self.assertTrue(server.cli("HISTORY", "a").endswith("\nnew"))
        self.assertEqual(server.cli("INDEX", "DIRTY"), "")
        self.assertTrue(server.cli("DATA", "RAW", "1", "64").endswith("\nolda"))
        self.assertEqual(server.cli("NSJUMP"), "OK")
        self.assertEqual(server.cli("RELOAD", "default"), "OK")
        self.assertEqual(server.cli("GET", "a"), "new")

    def test_flush_frees_the_disk(self):
        server = self.start()
        server.cli("NSNEW", "one")
        server.cli("NSSET", "one", "password", "secret")
        server.cli("NSSET", "one", "public", "0")
        names = os.path.join(self.data, "namespaces")
        (directory,) = (x for x in sorted(os.listdir(names)) if x != "00000001")

        def used():
            where = os.path.join(names, directory)
            files = [os.stat(os.path.join(where, x)) for x in os.listdir(where)]
            return sum(x.st_blocks * 512 for x in files)

        value = "v" * 400_000
        words = [f"SET key{i} {value}" for i in range(20)]
        script = "\n".join(["SELECT one secret", *words, "DBSIZE"]) + "\n"
        talk = ["redis-cli", *server.where]
        done = subprocess.run(talk, input=script, capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.stdout.split()[-1], "20")
        self.assertGreater(used(), 8_000_000)
        script = "SELECT one secret\nFLUSH\nDBSIZE\n"
        done = subprocess.run(talk, input=script, capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(done.stdout.split(), ["OK", "OK", "0"])
        self.assertLess(used(), 1_000_000)

    def test_wakes_a_client_that_waits(self):
        server = self.start()
        talk = ["redis-cli", *server.where, "WAIT", "SET", "20000"]
        with subprocess.Popen(talk, stdout=subprocess.PIPE, text=True) as waiting:
            # Until it waits, a SET passes unseen: so they go on until one is seen.
            number = 0
            while waiting.poll() is None:
                server.cli("SET", "key", str(number))
                number += 1
            self.assertEqual(waiting.stdout.read().strip(), "SET")
        self.assertIn("Timeout", server.cli("WAIT", "DEL", "100"))

    def test_protects_the_default_namespace(self):
        code = subprocess.run(
            [PROGRAM, "--data", self.data, "--protect"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        self.assertEqual((code.returncode, code.stderr.count("\n")), (2, 1), code.stderr)
        server = self.start("--admin", "s3cret", "--protect")
        self.assertIn("read-only", server.cli("SET", "key", "value"))
        done = subprocess.run(
            ["redis-cli", *server.where],
            input="SELECT default s3cret\nSET key value\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        self.assertEqual(done.stdout.split(), ["OK", "key"])

    def test_checks_a_directory(self):
        def check():
            done = subprocess.run(
                [PROGRAM, "--check", self.data], capture_output=True, text=True, timeout=PATIENCE_S
            )
            return done.returncode, done.stdout

        server = self.start()
        server.cli("SET", "key", "v" * 1000)
        self.assertEqual(check()[0], 1)  # In use.
        server.end(signal.SIGTERM)
        self.assertEqual(check()[0], 0)
        self.assertIn("1 good entries, 0 damaged", check()[1])
        path = os.path.join(self.data, "namespaces", "00000001", "00000001.data")
        with open(path, "r+b") as file:
            file.seek(500)
            file.write(b"x")
        code, out = check()
        self.assertEqual(code, 1)
        self.assertIn("damage: ", out)
        self.assertIn("the entry at 64 is damaged", out)

    def test_serves_the_python_client(self):
        try:
            import redis
        except ImportError:
            self.skipTest("python3-redis is not installed: its interoperability was NOT tested")
        server = self.start()
        with redis.Redis(port=int(server.where[1]), protocol=2) as client:
            self.assertEqual(client.execute_command("SET", "key", b"\0\1"), b"key")
            self.assertEqual(client.execute_command("GET", "key"), b"\0\1")
            with self.assertRaises(redis.ResponseError):
                client.execute_command("NOSUCH")

    def test_refuses_what_cannot_work(self):
        def run(*flags):
            done = subprocess.run(
                [PROGRAM, *flags], capture_output=True, text=True, timeout=PATIENCE_S
            )
            self.assertEqual(done.stdout, "")
            return done.returncode, done.stderr

        self.assertEqual(run()[0], 2)
        self.assertEqual(run("--data", self.data, "--sync", "sometimes")[0], 2)
        self.assertEqual(run("--data", self.data, "--listen", "nowhere")[0], 2)
        self.assertEqual(run("--data", self.data, "--admin", "a", "--admin-file", "b")[0], 2)
        server = self.start()
        code, err = run("--data", self.data, "--listen", "127.0.0.1:0")
        self.assertEqual((code, err.count("\n")), (1, 1), err)
        other = os.path.join(self.directory, "other")
        code, err = run("--data", other, "--listen", server.addresses[0])
        self.assertEqual((code, err.count("\n")), (1, 1), err)


if __name__ == "__main__":
    unittest.main()
