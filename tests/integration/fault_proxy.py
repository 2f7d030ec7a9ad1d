#!/usr/bin/env python3
"""A proxy in front of a 0-DB that breaks what passes through it: the faults of a backend, by command.

In a test, FaultProxy(address) and its set(Fault(...), ...) at any time. As a program, for a server that is already there:

    fault_proxy.py --to HOST:PORT [--listen HOST:PORT] --control PATH
    echo '{"set": [{"kind": "delay", "commands": ["GET"], "probability": 0.5, "seconds": 2}]}' | nc -U PATH

with {"set": []} for no faults, {"break": true} to reset all connections, {} to only ask; each line is answered with how
many commands of each kind came, how often each fault happened, and how many connections there were.

A fault has a kind, the commands that it applies to (none: all; a new connection counts as CONNECT), a probability, a count of how often it happens (None:
always), and options. The first that applies is taken. Kinds:

  the connection
    refuse        it is closed when the command comes, which does not reach the server
    mute          nothing is ever read from a new connection (its commands: ["CONNECT"])
    hold          the command is swallowed, and neither it nor anything behind it is answered
    stall         the reply stops after `at` bytes, and the connection stays open
    cut           the reply ends after `at` bytes, and the connection with it; without `at`: each time one byte later
    drop_reply    the command has its effect, and the connection is reset before the reply
    delay         the reply comes `seconds` later
    trickle       the reply comes at `rate` bytes per second
  what is said
    error         `-TEXT` in place of the server's reply; the command does not reach the server
    error_after   the same, but the command has its effect
    extra         a second reply follows the right one
    previous      the reply to the command before, of any key, in place of the right one
    garbage       bytes that are no reply
    huge          a bulk string of a terabyte is announced
    huge_array    an array of a thousand million elements is announced
    endless       a line that does not end (`mib` of it, 20 if not said)
    wrong_type    an integer in place of whatever it was
  what is stored (bulk replies longer than `longer_than` bytes, 64 if not said)
    flip          one bit is another one
    short         the end is missing
    zero          zeros
    junk          random bytes, as many
    swap          the value of another key that passed through
    stale         the first value that passed through for this key
    missing       nil
    lie           a SET is acknowledged and dropped
"""
import argparse
import collections
import contextlib
import json
import os
import random
import socket
import struct
import threading

# What is kept for `swap` and `stale`.
KEYS_KEPT_MAX = 512
VALUES_KEPT_BYTES_MAX = 64 << 20


class Fault:
    def __init__(self, kind, commands=(), probability=1.0, count=None, **options):
        if not hasattr(Serving, "do_" + kind):
            raise ValueError(f"no such fault: {kind}")
        self.kind = kind
        self.commands = {command.upper() for command in commands}
        self.probability = probability
        self.count = count
        self.options = options
        self.happened = 0

    def get(self, name, otherwise=None):
        return self.options.get(name, otherwise)


class Reader:
    """RESP from a socket, each value as the bytes that it came in."""

    def __init__(self, sock):
        self.file = sock.makefile("rb")

    def value(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError
        if line[:1] == b"$" and int(line[1:]) >= 0:
            body = self.file.read(int(line[1:]) + 2)
            if len(body) != int(line[1:]) + 2:
                raise ConnectionError
            return line + body
        if line[:1] == b"*" and int(line[1:]) > 0:
            return line + b"".join(self.value() for _ in range(int(line[1:])))
        return line


def bulk(content):
    return b"$%d\r\n%s\r\n" % (len(content), content)


def content_of(reply):
    """Of a bulk reply; None for any other."""
    if reply[:1] != b"$" or reply[:2] == b"$-":
        return None
    return reply.split(b"\r\n", 1)[1][:-2]


def words_of(request):
    """The words of a request, its command in capitals."""
    if request[:1] != b"*":
        words = request.split()
    else:
        words, rest = [], request.split(b"\r\n", 1)[1]
        while rest:
            length, rest = rest.split(b"\r\n", 1)
            words.append(rest[:int(length[1:])])
            rest = rest[int(length[1:]) + 2:]
    return [words[0].upper(), *words[1:]] if words else [b""]


class FaultProxy:
    """Thread-safe. end() closes everything."""

    def __init__(self, server_address, seed=1, listen=("127.0.0.1", 0), remember=False):
        host, port = server_address.rsplit(":", 1)
        self.target = (host, int(port))
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.faults = []
        self.connections = set()
        self.accepted = 0
        self.commands = collections.Counter()
        self.remember = remember  # Values, for `swap` and `stale`.
        self.first_values = {}
        self.kept_bytes = 0
        self.closing = False
        self.listener = socket.create_server(listen, backlog=64)
        self.address = "%s:%d" % self.listener.getsockname()[:2]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def set(self, *faults):
        """These from the next command on; faults of connections that are `mute` or held end with break_all()."""
        with self.lock:
            self.faults = list(faults)

    def break_all(self):
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def clear(self):
        self.set()
        self.break_all()

    def end(self):
        self.closing = True
        with socket.socket() as wake:
            wake.connect_ex(self.listener.getsockname())
        self.thread.join()
        self.listener.close()
        self.break_all()

    def counts(self):
        with self.lock:
            return {"accepted": self.accepted, "commands": dict(self.commands),
                    "faults": [{"kind": fault.kind, "happened": fault.happened} for fault in self.faults]}

    def accept(self):
        while not self.closing:
            client, _ = self.listener.accept()
            with self.lock:
                self.accepted += 1
                self.connections.add(client)
            threading.Thread(target=Serving(self, client).run, daemon=True).start()

    def choose(self, command):
        with self.lock:
            self.commands[command] += 1
            for fault in self.faults:
                if command not in fault.commands and (fault.commands or command == "CONNECT"):
                    continue
                if fault.count is not None and fault.happened >= fault.count:
                    continue
                if self.random.random() < fault.probability:
                    fault.happened += 1
                    return fault
        return None

    def keep(self, key, value):
        if not self.remember:
            return
        with self.lock:
            if (key not in self.first_values and len(self.first_values) < KEYS_KEPT_MAX
                    and self.kept_bytes + len(value) <= VALUES_KEPT_BYTES_MAX):
                self.first_values[key] = value
                self.kept_bytes += len(value)


class Serving:
    """One connection. Each do_…() passes one command on; False ends the connection."""

    def __init__(self, proxy, client):
        self.proxy, self.client = proxy, client
        self.server = None
        self.replies = None
        self.last_reply = b"$-1\r\n"

    def run(self):
        try:
            for sock in (self.client,):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fault = self.proxy.choose("CONNECT")
            if fault is not None:
                getattr(self, "do_" + fault.kind)(fault, b"", [b"CONNECT"])
                return
            self.server = socket.create_connection(self.proxy.target, timeout=30)
            self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.replies = Reader(self.server)
            requests = Reader(self.client)
            while True:
                request = requests.value()
                words = words_of(request)
                if words[0] == b"SET" and len(words) == 3 and words[1]:
                    self.proxy.keep(words[1], words[2])
                fault = self.proxy.choose(words[0].decode(errors="replace"))
                if fault is None:
                    self.client.sendall(self.ask(request))
                elif not getattr(self, "do_" + fault.kind)(fault, request, words):
                    return
        except (OSError, ConnectionError, ValueError, IndexError):
            pass
        finally:
            with self.proxy.lock:
                self.proxy.connections.discard(self.client)
            self.client.close()
            if self.server is not None:
                self.server.close()

    def ask(self, request):
        self.server.sendall(request)
        self.last_reply = self.replies.value()
        return self.last_reply

    def wait_for_the_end(self):
        """Of the connection, which is all that can still happen on it."""
        while self.client.recv(1 << 16):
            pass
        return False

    def say(self, text):
        self.client.sendall(text)
        return True

    def do_refuse(self, *_):
        return False

    def do_mute(self, *_):
        # One byte of window is enough to learn of the end: nothing is read off but what break_all() ends.
        gone = threading.Event()
        while not gone.wait(0.2):
            state = self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            if state != 1:  # TCP_ESTABLISHED
                return False
        return False

    def do_hold(self, *_):
        return self.wait_for_the_end()

    def do_stall(self, fault, request, _):
        self.client.sendall(self.ask(request)[:fault.get("at", 1)])
        return self.wait_for_the_end()

    def do_cut(self, fault, request, _):
        reply = self.ask(request)
        at = fault.get("at")
        self.client.sendall(reply[:(fault.happened - 1) % len(reply) if at is None else at])
        return False

    def do_drop_reply(self, _, request, __):
        self.ask(request)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def do_delay(self, fault, request, _):
        reply = self.ask(request)
        threading.Event().wait(fault.get("seconds", 2))
        return self.say(reply)

    def do_trickle(self, fault, request, _):
        reply = self.ask(request)
        step = max(1, fault.get("rate", 1000) // 10)
        for at in range(0, len(reply), step):
            self.client.sendall(reply[at:at + step])
            threading.Event().wait(0.1)
        return True

    def do_error(self, fault, *_):
        return self.say(b"-" + fault.get("text", "Internal Error").encode() + b"\r\n")

    def do_error_after(self, fault, request, words):
        self.ask(request)
        return self.do_error(fault, request, words)

    def do_extra(self, _, request, __):
        return self.say(self.ask(request) + b"$5\r\nextra\r\n")

    def do_previous(self, _, request, __):
        before = self.last_reply
        self.ask(request)
        return self.say(before)

    def do_garbage(self, _, request, __):
        self.ask(request)
        return self.say(self.proxy.random.randbytes(200) + b"\r\n")

    def do_huge(self, _, request, __):
        self.ask(request)
        self.client.sendall(b"$1099511627776\r\n" + b"x" * 1000)
        return self.wait_for_the_end()

    def do_huge_array(self, _, request, __):
        self.ask(request)
        self.client.sendall(b"*1000000000\r\n" + b"$1\r\nx\r\n" * 1000)
        return self.wait_for_the_end()

    def do_endless(self, fault, request, _):
        self.ask(request)
        self.client.sendall(b"+")
        for _ in range(fault.get("mib", 20)):
            self.client.sendall(b"x" * (1 << 20))
        return self.wait_for_the_end()

    def do_wrong_type(self, _, request, __):
        self.ask(request)
        return self.say(b":42\r\n")

    def changed(self, fault, request, change):
        reply = self.ask(request)
        content = content_of(reply)
        if content is None or len(content) <= fault.get("longer_than", 64):
            return self.say(reply)
        return self.say(change(content))

    def do_flip(self, fault, request, _):
        def flip(content):
            changed = bytearray(content)
            changed[self.proxy.random.randrange(len(changed))] ^= 1 << self.proxy.random.randrange(8)
            return bulk(bytes(changed))
        return self.changed(fault, request, flip)

    def do_short(self, fault, request, _):
        return self.changed(fault, request, lambda content: bulk(content[:self.proxy.random.randrange(len(content))]))

    def do_zero(self, fault, request, _):
        return self.changed(fault, request, lambda content: bulk(bytes(len(content))))

    def do_junk(self, fault, request, _):
        return self.changed(fault, request, lambda content: bulk(self.proxy.random.randbytes(len(content))))

    def do_missing(self, fault, request, _):
        return self.changed(fault, request, lambda _: b"$-1\r\n")

    def do_swap(self, fault, request, words):
        with self.proxy.lock:
            others = [value for key, value in self.proxy.first_values.items() if key != words[1]]
        return self.changed(fault, request,
                            lambda content: bulk(self.proxy.random.choice(others)) if others else bulk(content))

    def do_stale(self, fault, request, words):
        with self.proxy.lock:
            first = self.proxy.first_values.get(words[1])
        return self.changed(fault, request, lambda content: bulk(content if first is None else first))

    def do_lie(self, _, request, words):
        if words[0] != b"SET" or not words[1]:
            return self.say(self.ask(request))
        return self.say(bulk(words[1]))


def obey(proxy, line):
    order = json.loads(line)
    if "set" in order:
        proxy.set(*(Fault(**fault) for fault in order["set"]))
    if order.get("break"):
        proxy.break_all()
    return proxy.counts()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", required=True)
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--control", required=True)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    host, port = arguments.listen.rsplit(":", 1)
    proxy = FaultProxy(arguments.to, seed=arguments.seed, listen=(host, int(port)), remember=True)
    print(f"listening on {proxy.address}", flush=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(arguments.control)
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(arguments.control)
        control.listen()
        while True:
            caller, _ = control.accept()
            with caller, caller.makefile("rw") as file:
                for line in file:
                    try:
                        answer = obey(proxy, line)
                    except (ValueError, TypeError, AttributeError) as error:
                        answer = {"error": str(error)}
                    file.write(json.dumps(answer) + "\n")
                    file.flush()


if __name__ == "__main__":
    main()
