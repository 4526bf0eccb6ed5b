"""What nodes and the disk say of themselves while they are measured."""

import os
import threading
import time
import urllib.request
from pathlib import Path


def device_written(device):
    """Bytes the disk has written for the whole machine; what the kernel accounts to a process is whole folios."""
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if fields[2] == os.path.basename(os.path.realpath(device)):
            return int(fields[9]) * 512
    return 0


class Sampler(threading.Thread):
    """Notes metrics twice a second, those of all nodes summed."""

    def __init__(self, metrics_urls, device):
        super().__init__(daemon=True)
        self.metrics_urls, self.device = metrics_urls, device
        self.samples, self.over = [], threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            sample = {"unix_ms": time.time() * 1000, "metrics": self.metrics()}
            sample["disk"] = {"written": device_written(self.device)}
            self.samples.append(sample)

    def metrics(self):
        values = {}
        for url in self.metrics_urls:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                return {}
            for line in text.splitlines():
                if line and not line.startswith("#") and "_bucket{" not in line and "quantile=" not in line:
                    name, value = line.rsplit(" ", 1)
                    values[name] = values.get(name, 0) + float(value)
        return values

    def between(self, began_ms, ended_ms):
        """What was added in a time. Before both of its ends the node is idle: presigning, settling."""
        before = lambda moment: [sample for sample in self.samples if sample["unix_ms"] <= moment]
        if not before(began_ms):
            return {"metrics": {}, "disk": {}}
        first, last = before(began_ms)[-1], before(ended_ms)[-1]
        added = {}
        for kind in ("metrics", "disk"):
            added[kind] = {name: value - first[kind].get(name, 0) for name, value in last[kind].items()}
        return added
