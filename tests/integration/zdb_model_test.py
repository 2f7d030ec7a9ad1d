#!/usr/bin/env python3
"""qsfs-zdb against a model: 64 clients at once do random things, each on keys of its own, while the server is killed,
stopped and started again. What was acknowledged is there afterwards; what was under way may be; nothing else is.

The seed is printed; QSFS_MODEL_SEED repeats it (the interleaving with the server is the machine's)."""
import asyncio
import os
import pathlib
import random
import shutil
import signal
import struct
import tempfile
import time

from harness import BIN, Server, main, run

LONG = os.environ.get("QSFS_LONG") == "1"
CLIENTS = 64
ROUNDS, ROUND_S = (30, 5.0) if LONG else (4, 1.5)
# Of one client, that an id was given to; more than that are removed before others are made.
IDS_MAX = 1000
BATCH = 100
SEED = int(os.environ.get("QSFS_MODEL_SEED", time.time_ns() % 1_000_000))
MISSING = None


def encode(*words):
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Refused(Exception):
    """The server answered with an error."""


class Wire:
    """One connection. `ask` sends commands together and reads their replies."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address):
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port), limit=1 << 24))

    async def ask(self, *commands):
        self.writer.write(b"".join(encode(*command) for command in commands))
        await self.writer.drain()
        return [await self.reply() for _ in commands]

    async def reply(self):
        line = await self.reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            if rest == b"-1":
                return None
            return (await self.reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return [await self.reply() for _ in range(int(rest))]
        if kind == b"-":
            return Refused(rest.decode())
        return int(rest) if kind == b":" else rest

    def close(self):
        self.writer.close()


class Client:
    """Does random things in a namespace that it shares with others of its mode; the keys are its own."""

    def __init__(self, number, address):
        self.rng = random.Random(SEED * 1000 + number)
        self.is_seq = number % 4 == 0
        # Ids are given out to all, so that those of a sequential namespace belong to one client.
        self.space = f"seq-{number}" if self.is_seq else f"user-{number % 5}"
        self.prefix = b"%d/" % number
        self.address = address
        self.model = {}  # Key to the values that it may have.
        self.given = set()  # Ids that the server has made: none is made twice.
        self.may_be_new = set()  # Values that an id may have got, of which we do not know which.
        self.done = 0

    async def connect(self):
        while True:
            try:
                wire = await Wire.open(self.address)
                if self.is_seq:
                    # Made by whoever comes first; the others are told that it is there.
                    await wire.ask(("NSNEW", self.space), ("NSSET", self.space, "mode", "seq"))
                else:
                    await wire.ask(("NSNEW", self.space))
                (selected,) = await wire.ask(("SELECT", self.space))
                assert selected == b"OK", selected
                return wire
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)  # Another process starts.

    def value(self):
        size = self.rng.choice((0, 1, 10, 100, 1000, 4096, 20_000, 70_000))
        if self.rng.random() < 0.01:
            size = 1 << 20
        return struct.pack("<Q", self.rng.getrandbits(64)) * (size // 8 + 1)

    def some_key(self):
        if self.is_seq:
            return self.rng.choice(list(self.model)) if self.model else None
        return self.prefix + b"%d" % self.rng.randrange(200)

    def plan(self):
        """(command, what the model becomes, check of the reply)."""
        what = self.rng.random()
        key = self.some_key()
        has_room = len(self.model) < IDS_MAX
        if what < 0.45 and self.is_seq and has_room and (key is None or self.rng.random() < 0.5):
            value = self.value()
            return ("SET", b"", value), (None, value)
        if key is None:
            return ("DBSIZE",), None
        if what < 0.45:
            value = self.value()
            return ("SET", key, value), (key, value)
        if what < 0.55:
            return ("DEL", key), (key, MISSING)
        return (self.rng.choice((("GET", key), ("GET", key), ("EXISTS", key), ("LENGTH", key)))), None

    def judge(self, command, change, reply):
        """The command was answered: the model knows what is there now."""
        name, key = command[0], command[1] if len(command) > 1 else None
        where = (self.space, command[0], key, reply if not isinstance(reply, bytes) else reply[:50])
        if name == "SET" and change[0] is None:
            assert isinstance(reply, bytes) and len(reply) == 8 and reply not in self.given, where
            self.given.add(reply)
            self.model[reply] = [change[1]]
            return
        if name == "DBSIZE":
            return
        now = self.model.get(key, [MISSING])
        if name == "SET":
            if self.is_seq and isinstance(reply, Refused):
                assert MISSING in now, where  # An id that was removed cannot be set.
                self.model[key] = [MISSING]
                return
            assert reply == key or (reply is None and change[1] in now), where
            self.model[key] = [change[1]]
        elif name == "DEL":
            assert (reply == b"OK" and now != [MISSING]) or (isinstance(reply, Refused) and MISSING in now), where
            self.model[key] = [MISSING]
        elif name == "GET":
            assert reply in now, where
            self.model[key] = [reply]
        elif name == "EXISTS":
            assert reply in {int(value is not MISSING) for value in now}, where
        elif name == "LENGTH":
            assert reply in {value if value is None else len(value) for value in now}, where

    def lose(self, plans):
        """The connection is gone: what was sent may have been done, in order, up to any point."""
        for _, change in plans:
            if change is None:
                continue
            key, value = change
            if key is None:
                self.may_be_new.add(value)
            else:
                self.model[key] = [*self.model.get(key, [MISSING]), value]

    async def live(self, stop):
        wire = await self.connect()
        try:
            while not stop.is_set():
                plans = []
                keys = set()
                for _ in range(self.rng.choice((1, 1, 1, 4, 20))):
                    plan = self.plan()
                    # One change of a key at a time: what a lost one has left is then known.
                    key = plan[0][1] if len(plan[0]) > 1 else None
                    if key and key in keys:
                        continue
                    keys.add(key)
                    plans.append(plan)
                try:
                    replies = await wire.ask(*(command for command, _ in plans))
                except (OSError, asyncio.IncompleteReadError):
                    self.lose(plans)
                    wire.close()
                    wire = await self.connect()
                    continue
                for (command, change), reply in zip(plans, replies):
                    self.judge(command, change, reply)
                self.done += len(plans)
                if self.rng.random() < 0.002:
                    wire.close()
                    wire = await self.connect()
        finally:
            wire.close()

    async def verify(self):
        wire = await self.connect()
        keys = list(self.model)
        for start in range(0, len(keys), BATCH):
            batch = keys[start:start + BATCH]
            for key, reply in zip(batch, await wire.ask(*(("GET", key) for key in batch))):
                assert reply in self.model[key], (self.space, key, "is another value")
                self.model[key] = [reply]
                if self.is_seq and reply is MISSING:
                    del self.model[key]  # It cannot come back: SCAN would find it.
        # Nothing is there that nobody has put there.
        cursor, found = b"", {}
        while True:
            (page,) = await wire.ask(("SCAN", cursor) if cursor else ("SCAN",))
            if isinstance(page, Refused):
                assert str(page) == "No more data", page
                break
            cursor = page[0]
            for key, _, _ in page[1]:
                if self.is_seq or key.startswith(self.prefix):
                    found[key] = True
        for key in found.keys() - {key for key, values in self.model.items() if values != [MISSING]}:
            (reply,) = await wire.ask(("GET", key))
            assert self.is_seq and reply in self.may_be_new, (self.space, key, "is nobody's")
            self.model[key] = [reply]
        missing = {key for key, values in self.model.items() if values != [MISSING]} - found.keys()
        assert not missing, (self.space, missing, "SCAN does not find them")
        wire.close()


async def whole_life(home):
    server = Server(home / "data", "--sync", "never", "--max-connections", "200")
    clients = [Client(number, server.address) for number in range(CLIENTS)]
    rng = random.Random(SEED)
    begin = time.monotonic()
    try:
        for round_number in range(ROUNDS):
            stop = asyncio.Event()
            lives = [asyncio.create_task(client.live(stop)) for client in clients]
            await asyncio.sleep(ROUND_S)
            ends = rng.choice(("kill", "kill", "stop", "none")) if round_number + 1 < ROUNDS else "none"
            if ends == "kill":
                server.kill()
            elif ends == "stop":
                server.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(server.process.wait)
            if ends != "none":
                server.process.stdout.close()
                server.start()
                await asyncio.sleep(ROUND_S / 2)
            stop.set()
            await asyncio.gather(*lives)
            await asyncio.gather(*(client.verify() for client in clients))
        status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
        resident = [line for line in status.splitlines() if line.startswith(("VmHWM", "Threads"))]
        took = time.monotonic() - begin
        done = sum(client.done for client in clients)
        print(f"{CLIENTS} clients, {done} commands in {took:.0f} s, {resident}", flush=True)
        assert done > 1000
    finally:
        server.end()
    checked = run(BIN / "qsfs-zdb", "--check", home / "data", check=False)
    assert checked.returncode == 0, checked.stdout


def sixty_four_clients_over_kills_and_restarts():
    print("seed", SEED, flush=True)
    home = pathlib.Path(tempfile.mkdtemp(prefix="qsfs-zdb-model-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        asyncio.run(whole_life(home))
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main([sixty_four_clients_over_kills_and_restarts])
