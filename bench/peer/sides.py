"""What is measured: how its nodes are started, reached and ended."""

import json
import platform
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASE_FEE = 1_000_000_000
HARDFORK = "osaka"
PATIENCE = 60


def free_ports(count):
    """Ports on loopback that nobody listens on; held together, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def anvil():
    """The peer's own binary: its npm wrapper would be one more process."""
    system = platform.system().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
    binary = HERE / f"node_modules/@foundry-rs/anvil-{system}-{arch}/bin/anvil"
    if not binary.exists():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        print("$", shlex.join(command), flush=True)
        if subprocess.run(command, cwd=HERE, timeout=600).returncode != 0 or not binary.exists():
            raise RuntimeError("cannot install anvil from npm")
    return binary


def rpc(url, method):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)["result"]


def end(process):
    """Ends one process of ours: first asks, then kills."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
    return process.returncode


def milliseconds(seconds):
    return f"{round(seconds * 1000)}ms"


class Side:
    """Nodes of one kind. `start` gives them a folder; then they can be reached until `stop`."""

    is_durable = True
    by_quic = False

    def __init__(self, args):
        self.args, self.process = args, None
        self.pids, self.urls, self.quic, self.metrics = [], [], [], []

    def start(self, folder, log):
        command = self.command(folder)
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the node ended with {self.process.returncode} before it served")
            try:
                if self.look(folder):
                    return [rpc(url, "web3_clientVersion") for url in self.urls][0]
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"the nodes do not serve after {PATIENCE} s")

    def look(self, _folder):
        """Learns where the nodes are; whether it has."""
        self.pids = [self.process.pid]
        return True

    def load_flags(self):
        flags = ["--rpc", ",".join(self.urls), "--pid", ",".join(map(str, self.pids))]
        return flags + (["--quic", ",".join(self.quic)] if self.by_quic else [])

    def stop(self):
        return end(self.process)


class Node(Side):
    name = "sluice"

    def command(self, folder):
        ports = free_ports(4)
        self.urls, self.quic = [f"http://127.0.0.1:{ports[0]}"], [f"127.0.0.1:{ports[3]}"]
        self.metrics = [f"http://127.0.0.1:{ports[2]}/metrics"]
        return [
            str(self.args.sluice), "node", "--dev", "--datadir", str(folder),
            "--dev.block-time", milliseconds(self.args.block_time), "--dev.gaslimit", str(self.args.gas_limit),
            "--http.port", str(ports[0]), "--ws.port", str(ports[1]), "--quic", self.quic[0],
            "--metrics", f"127.0.0.1:{ports[2]}", "--log", "warn", *shlex.split(self.args.node_flags),
        ]


class QuicNode(Node):
    name = "sluice, QUIC"
    by_quic = True


class Network(Side):
    name = "4 validators"
    by_quic = True

    def command(self, folder):
        return [
            str(self.args.sluice), "localnet", "--dir", str(folder), "--validators", "4", "--base-port", "0",
            "--slot-time", milliseconds(self.args.block_time), "--gas-limit", str(self.args.gas_limit),
            "--quiet", "--log", "warn", *(["--", *flags] if (flags := shlex.split(self.args.node_flags)) else []),
        ]

    def look(self, folder):
        nodes = json.loads((folder / "localnet.json").read_text())["nodes"]
        if not all(node["process"] for node in nodes):
            return False
        self.pids = [node["process"]["pid"] for node in nodes]
        self.urls, self.quic = ([node[key] for node in nodes] for key in ("rpc", "quic"))
        self.metrics = [node["metrics"] for node in nodes]
        return all(int(rpc(url, "eth_blockNumber"), 16) > 0 for url in self.urls)


class Anvil(Side):
    name = "anvil"
    is_durable = False

    def command(self, _folder):
        port = free_ports(1)[0]
        self.urls = [f"http://127.0.0.1:{port}"]
        return [
            str(anvil()), "--host", "127.0.0.1", "--port", str(port), "--block-time", f"{self.args.block_time:g}",
            "--gas-limit", str(self.args.gas_limit), "--block-base-fee-per-gas", str(BASE_FEE),
            "--hardfork", HARDFORK, "--silent",
        ]


SIDES = {"P": Node, "Q": QuicNode, "N": Network, "U": Anvil}
