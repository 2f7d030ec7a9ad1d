#!/usr/bin/env python3
"""Volumes in namespaces of their own, on bridges as a node has them, called over HTTP and over zbus.

The test re-executes itself in a network and mount namespace of its own: two of it never meet, and nothing is left behind.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import uuid

from harness import BIN, main, run, wait_until
from qsfsd_harness import KEY, MIB, Daemon, processes_of

PREFIX = "303:45bf:8a48:8361"
FAR_AWAY = "200:abcd::1"  # Behind the gateway of the volumes' overlay network.
NETNS = pathlib.Path("/run/netns")
FILE = bytes(range(256)) * 4096
MUST_NOT_HAPPEN = 0.5  # Seconds that a blocked connection is waited for.
# Of lifecycle/network/node_network.cc.
NETWORK_FAILPOINTS = ["network.recorded", "network.namespace", "network.firewall", "network.leased"]
MOUNT_FAILPOINTS = ["qsfsd.mount.network", "qsfsd.mount.bound", "qsfsd.mount.spawned", "qsfsd.mount.answered"]
REMOVE_FAILPOINTS = ["qsfsd.drain.stopped", "qsfsd.drain.archived", "qsfsd.remove.data", "network.destroy.link",
                     "network.destroy.namespace", "network.destroy.lease", "qsfsd.remove.network"]


def enter_own_world():
    """Skips where the kernel has no such namespaces or links."""
    if os.environ.get("QSFS_OWN_WORLD") != "1":
        for program in ("ip", "nft", "unshare", "redis-server"):
            if shutil.which(program) is None:
                print(f"skipped: {program} is not installed")
                sys.exit(1 if os.environ.get("CI") == "true" else 77)
        os.environ["QSFS_OWN_WORLD"] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    run("mount", "-t", "tmpfs", "none", "/run")
    ip("link set lo up")
    ip("netns add gateways")
    for bridge in ("br-ndmz", "br-ygg"):
        ip(f"link add {bridge} type bridge")
        ip(f"link set {bridge} up")
    for link, bridge in (("tonrs", "br-ndmz"), ("nygg6", "br-ygg")):
        done = run("ip", *f"link add {link} link {bridge} netns gateways type macvlan mode bridge".split(), check=False)
        if done.returncode != 0:
            print(f"skipped: this kernel has no macvlan: {done.stderr}")
            sys.exit(77)
    for address in ("100.127.0.1/16 dev tonrs", "fd00::1/64 dev tonrs nodad", "fe80::1/64 dev tonrs nodad",
                    f"{PREFIX}::1/64 dev nygg6 nodad", f"{FAR_AWAY}/128 dev lo nodad"):
        ip("-n gateways addr add " + address)
    for link in ("lo", "tonrs", "nygg6"):
        ip(f"-n gateways link set {link} up")


def ip(words):
    return run("ip", *words.split()).stdout


def in_gateways(*words, **options):
    return subprocess.run(["ip", "netns", "exec", "gateways", *map(str, words)], text=True, capture_output=True, timeout=60,
                          check=False, **options)


def fetch(url, patience=20):
    """As somebody behind the gateways: the body, or nothing when no answer comes."""
    script = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).read().decode())"
    done = in_gateways(sys.executable, "-c", script, url, patience)
    return done.stdout if done.returncode == 0 else None


class FarServer:
    """A qsfs-zdb that only namespaces with a way to the overlay network can reach."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", "gateways", BIN / "qsfs-zdb", "--data", directory, "--listen", f"[{FAR_AWAY}]:0",
             "--log-level", "warn"], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on "), line
        self.address = line.removeprefix("listening on ")

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Node(Daemon):
    """A qsfsd with the node's bridges, and servers far away."""

    def __init__(self, *flags):
        super().__init__(*flags)
        self.leases = self.home / "leases"
        self.leases.mkdir()
        self.flags = tuple(flag for flag in self.flags if flag != "--no-network") + (
            "--ygg-prefix", f"{PREFIX}::/64", "--lease-dir", self.leases)
        self.servers = [FarServer(self.home / f"zdb{i}") for i in range(4)]

    def far_workload(self, name, **changes):
        backends = [{"address": server.address, "namespace": "default", "password": ""} for server in self.servers]
        workload = self.workload(name, groups=[{"backends": [backend]} for backend in backends[:3]], **changes)
        workload["config"]["meta"]["config"]["backends"] = backends[3:]
        return workload

    def mount_far(self, name):
        status, answer = self.call("PUT", f"/volumes/{name}", self.far_workload(name))
        assert status == 200, (status, answer, self.log_tail())
        return answer

    def remainders(self):
        """Of the network as well: namespaces, links of the host, leases, records."""
        links = [link["ifname"] for link in json.loads(run("ip", "-j", "-d", "link").stdout)
                 if link.get("linkinfo", {}).get("info_kind") in ("veth", "macvlan")]
        spaces = [path.name for path in NETNS.iterdir() if path.name != "gateways"]
        leases = [str(path) for path in self.leases.rglob("*")
                  if path.is_file() and path.name not in ("lock", "last_reserved_ip.0")]
        return super().remainders() + links + spaces + leases

    def reboot(self):
        self.crash_everything()
        for path in NETNS.iterdir():
            if path.name != "gateways":
                run("ip", "netns", "del", path.name)
        shutil.rmtree(self.leases)  # On a node they are in memory.
        self.leases.mkdir()

    def __exit__(self, *problem):
        super().__exit__(*problem)
        for path in NETNS.iterdir():
            if path.name != "gateways":
                run("ip", "netns", "del", path.name, check=False)
        for server in self.servers:
            server.end()


def name_space_of(pid):
    """The name of the namespace that a process is in."""
    own = os.stat(f"/proc/{pid}/ns/net")
    return [path.name for path in NETNS.iterdir() if path.stat().st_ino == own.st_ino]


def addresses_in(name_space, link):
    return [entry["local"] for entry in json.loads(run("ip", "-n", name_space, "-j", "addr", "show", link).stdout)[0]["addr_info"]
            if entry["scope"] == "global"]


def a_volume_lives_in_a_namespace_of_its_own():
    with Node().start() as node:
        answer = node.mount_far("1-2-data")
        # As everybody computes them from the id.
        assert answer["metrics_endpoint"] == f"http://[{PREFIX}:f0d5:3030:a673:3cf0]:9100/metrics", answer
        pid = node.show("1-2-data")["pid"]
        assert name_space_of(pid) == ["qfs-ns-dee9ae7b511c"]
        path = pathlib.Path(answer["path"])
        (path / "file").write_bytes(FILE)
        # The backends cannot be reached from here, but from inside.
        with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
            host, _, port = node.servers[0].address.rpartition(":")
            assert probe.connect_ex((host.strip("[]"), int(port))) != 0
        run(BIN / "qsfs", "sync", "--remote", path)
        status = json.loads(run(BIN / "qsfs", "status", "--json", path, check=False).stdout)
        assert status["archive"]["behind_bytes"] == 0 and status["verdict"] == "ok", status
        traffic = node.call("GET", "/network")[1]["consumption"]["1-2-data"]
        assert traffic["net_tx_bytes"] > 50_000 and traffic["net_rx_packets"] > 0, traffic
        metrics = node.call("GET", "/metrics")[1]
        assert 'qsfsd_network_transmit_bytes_total{volume="1-2-data"}' in metrics
        assert 'qsfsd_network_links_missing{volume="1-2-data"} 0' in metrics
        node.delete_and_wait("1-2-data")
        assert node.remainders() == [], node.remainders()
        # All of it was on the backends.
        assert (pathlib.Path(node.mount_far("1-2-data")["path"]) / "file").read_bytes() == FILE


def its_metrics_are_reached_over_ygg0_and_not_over_public():
    with Node().start() as node:
        endpoint = node.mount_far("a")["metrics_endpoint"]
        text = fetch(endpoint)
        assert text is not None and "qsfs_" in text, text
        (name_space,) = name_space_of(node.show("a")["pid"])
        public = addresses_in(name_space, "public")
        assert len(public) == 2, public
        for address in public:
            host = f"[{address}]" if ":" in address else address
            assert fetch(f"http://{host}:9100/metrics", MUST_NOT_HAPPEN) is None, address
        # It listens there: only the firewall keeps others out.
        inside = subprocess.run(["ip", "netns", "exec", name_space, sys.executable, "-c",
                                 "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).status)",
                                 f"http://{public[0]}:9100/metrics"], text=True, capture_output=True, timeout=60, check=False)
        assert inside.stdout.strip() == "200", inside
        assert fetch(endpoint) is not None


def five_volumes_side_by_side_leave_nothing():
    with Node().start() as node:
        names = [f"1-{i}-data" for i in range(5)]
        answers = node.together(names, node.mount_far)
        assert len({answer["metrics_endpoint"] for answer in answers}) == 5
        for answer, name in zip(answers, names):
            (pathlib.Path(answer["path"]) / "file").write_bytes(FILE + name.encode())
        consumption = node.call("GET", "/network")[1]["consumption"]
        assert sorted(consumption) == names, consumption
        node.together(names, node.delete_and_wait)
        assert node.remainders() == [], node.remainders()
        for name, answer in zip(names, node.together(names, node.mount_far)):
            assert (pathlib.Path(answer["path"]) / "file").read_bytes() == FILE + name.encode()


def a_reboot_brings_everything_back():
    with Node().start() as node:
        paths = {name: pathlib.Path(node.mount_far(name)["path"]) for name in ("kept", "deleted")}
        for name, path in paths.items():
            (path / "file").write_bytes(FILE + name.encode())
            run("sync", "-f", path)
        for server in node.servers:
            server.process.send_signal(signal.SIGSTOP)
        node.delete("deleted")
        node.reboot()
        for server in node.servers:
            server.process.send_signal(signal.SIGCONT)
        node.start()
        node.wait_running("kept")
        assert (paths["kept"] / "file").read_bytes() == FILE + b"kept"
        assert fetch(node.show("kept")["metrics_endpoint"]) is not None
        node.wait_gone("deleted")
        assert (pathlib.Path(node.mount_far("deleted")["path"]) / "file").read_bytes() == FILE + b"deleted"


def a_death_of_both_anywhere_in_a_mount_leaves_nothing():
    with Node() as node:
        for step in NETWORK_FAILPOINTS + MOUNT_FAILPOINTS:
            node.start(failpoint=step)
            with contextlib.suppress(OSError):
                node.call("PUT", "/volumes/a", node.far_workload("a"))
                raise AssertionError(f"{step} was not reached")
            node.wait_dead()
            for pid in processes_of(node.root):
                os.kill(pid, signal.SIGKILL)
            node.start()
            node.wait_gone("a")
            wait_until("nothing is left", lambda: not node.remainders())
            node.stop()


def a_death_of_both_anywhere_in_a_removal_loses_nothing():
    with Node() as node:
        for step in REMOVE_FAILPOINTS:
            node.start(failpoint=step)
            path = pathlib.Path(node.mount_far("a")["path"])
            (path / step).write_bytes(FILE)
            node.delete("a")
            node.wait_dead()
            for pid in processes_of(node.root):
                os.kill(pid, signal.SIGKILL)
            node.start()
            node.wait_gone("a")
            wait_until("nothing is left", lambda: not node.remainders())
            node.stop()
        node.start()
        path = pathlib.Path(node.mount_far("a")["path"])
        assert sorted(os.listdir(path)) == sorted(REMOVE_FAILPOINTS)
        assert all((path / step).read_bytes() == FILE for step in REMOVE_FAILPOINTS)


# zbus, as Go's client speaks it: MessagePack in lists of a Redis.


def pack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xcf" + struct.pack(">Q", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())


class Unpacker:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        self.at += length
        return self.data[self.at - length:self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "big")

    def value(self):
        kind = self.number(1)
        if kind < 0x80:
            return kind
        if kind < 0x90:
            return self.map(kind & 0x0F)
        if kind < 0xA0:
            return [self.value() for _ in range(kind & 0x0F)]
        if kind < 0xC0:
            return self.take(kind & 0x1F).decode()
        if kind in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[kind]
        if kind in (0xC4, 0xC5, 0xC6):
            return self.take(self.number(1 << (kind - 0xC4)))
        if kind in (0xCC, 0xCD, 0xCE, 0xCF):
            return self.number(1 << (kind - 0xCC))
        if kind in (0xD9, 0xDA, 0xDB):
            return self.take(self.number(1 << (kind - 0xD9))).decode()
        if kind in (0xDC, 0xDD):
            return [self.value() for _ in range(self.number(2 << (kind - 0xDC)))]
        if kind in (0xDE, 0xDF):
            return self.map(self.number(2 << (kind - 0xDE)))
        raise AssertionError(f"kind {kind:#x}")

    def map(self, length):
        return {self.value(): self.value() for _ in range(length)}


def unpack(data):
    return Unpacker(data).value()


class Zbus:
    """A real redis-server, and a client of the manager on it."""

    def __init__(self, home):
        self.path = home / "redis.sock"
        self.process = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", self.path, "--save", "", "--dir", home],
                                        stdout=subprocess.DEVNULL)
        wait_until("redis answers", lambda: self.try_ping())
        self.broker = f"unix://{self.path}"

    def try_ping(self):
        with contextlib.suppress(OSError):
            return self.redis("PING") == b"PONG"
        return False

    def redis(self, *words):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(120)
            connection.connect(str(self.path))
            parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            connection.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            return self.read(connection.makefile("rb"))

    def read(self, stream):
        line = stream.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"$":
            data = stream.read(int(rest) + 2)[:-2] if int(rest) >= 0 else None
            return data
        if kind == b"*":
            return [self.read(stream) for _ in range(int(rest))] if int(rest) >= 0 else None
        assert kind != b"-", line
        return rest

    def call(self, method, *inputs):
        """(data, text of the method's error). A protocol error fails the test."""
        ident = str(uuid.uuid4())
        request = {"ID": ident, "Inputs": [pack(value) for value in inputs],
                   "Object": {"Name": "manager", "Version": "0.0.1"}, "ReplyTo": ident, "Method": method}
        self.redis("RPUSH", "qsfsd.manager@0.0.1", pack(request))
        answer = unpack(self.redis("BLPOP", ident, "100")[1])
        assert answer["ID"] == ident and answer["Error"] is None, answer
        output = answer["Output"]
        data = None if output["Data"] is None else unpack(output["Data"])
        return data, None if output["Error"] is None else output["Error"]["Message"]

    def end(self):
        self.process.terminate()
        self.process.wait()


def go_workload(workload):
    """Field names as Go's structs have them."""
    def encryption(table):
        return {"Algorithm": table["algorithm"], "Key": bytes.fromhex(KEY)}

    def backends(table):
        return [{"Address": one["address"], "Namespace": one["namespace"], "Password": one["password"]} for one in table]

    config = workload["config"]
    meta = config["meta"]["config"]
    return {"Cache": workload["cache"], "Config": {
        "MinimalShards": config["minimal_shards"], "ExpectedShards": config["expected_shards"],
        "RedundantGroups": config["redundant_groups"], "RedundantNodes": config["redundant_nodes"],
        "MaxZDBDataDirSize": config["max_zdb_data_dir_size"], "Encryption": encryption(config["encryption"]),
        "Meta": {"Type": "zdb", "Config": {"Prefix": meta["prefix"], "Encryption": encryption(meta["encryption"]),
                                           "Backends": backends(meta["backends"])}},
        "Groups": [{"Backends": backends(group["backends"])} for group in config["groups"]],
        "Compression": {"Algorithm": "snappy"}}}


def zbus_does_the_same():
    with Node() as node:
        bus = Zbus(node.home)
        try:
            node.flags += ("--broker", bus.broker, "--workers", "4")
            node.start()
            workload = go_workload(node.far_workload("a"))
            info, error = bus.call("Mount", "a", workload)
            assert error is None and info["Path"] == f"{node.root}/mounts/a", (info, error)
            assert fetch(info["MetricsEndpoint"]) is not None
            (pathlib.Path(info["Path"]) / "file").write_bytes(FILE)
            assert bus.call("Mount", "a", workload) == (info, None)
            workload["Config"]["MaxZDBDataDirSize"] = 32
            assert bus.call("UpdateMount", "a", workload) == (info, None)
            assert "max_zdb_data_dir_size = 32\n" in (node.root / "volumes/a/zstor.toml").read_text()
            metrics, error = bus.call("Metrics")
            assert error is None and metrics["Consumption"]["a"]["NetTxBytes"] > 0, metrics
            assert bus.call("SignalDelete", "a") == (None, None)
            node.wait_gone("a")
            assert node.remainders() == [], node.remainders()
            # An error comes with zero values: Go's client would panic without.
            info, error = bus.call("UpdateMount", "a", workload)
            assert info == {"Path": "", "MetricsEndpoint": ""} and "no volume" in error, (info, error)
            workload["Config"]["MinimalShards"] = 99
            info, error = bus.call("Mount", "a", workload)
            assert info == {"Path": "", "MetricsEndpoint": ""} and "minimal_shards" in error, (info, error)
            workload["Config"]["MinimalShards"] = 2
            info, error = bus.call("Mount", "a", workload)
            assert error is None and (pathlib.Path(info["Path"]) / "file").read_bytes() == FILE
            assert bus.call("Unmount", "a") == (None, None)
            assert node.remainders() == [], node.remainders()
        finally:
            node.crash_everything()
            bus.end()


TESTS = [a_volume_lives_in_a_namespace_of_its_own, its_metrics_are_reached_over_ygg0_and_not_over_public,
         five_volumes_side_by_side_leave_nothing, a_reboot_brings_everything_back,
         a_death_of_both_anywhere_in_a_mount_leaves_nothing, a_death_of_both_anywhere_in_a_removal_loses_nothing,
         zbus_does_the_same]

if __name__ == "__main__":
    if os.geteuid() == 0:
        enter_own_world()
    main(TESTS)
