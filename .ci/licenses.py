#!/usr/bin/env python3
"""Checks what the workspace depends on: licences, sources, exact pins, known bad versions.

Reads `cargo metadata`; needs nothing but Python's standard library. Exits 1 and names every violation.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "CC0-1.0",
    "Unicode-3.0", "MPL-2.0", "Unlicense", "BSL-1.0", "0BSD", "MIT-0", "CDLA-Permissive-2.0",
}
PINNED = {"revm", "signet-libmdbx", "quinn-proto", "blst"}
BANNED = {"quinn-proto": (0, 11, 14)}  # below: a malformed Initial panics the server (CVE-2026-31812)


def permitted(expression):
    """Whether some choice that the SPDX expression offers is allowed throughout."""
    expression = expression.replace("/", " OR ").replace("(", " ").replace(")", " ")
    choices = [choice.split(" AND ") for choice in expression.split(" OR ")]
    return any(all(part.strip() in ALLOWED for part in choice) for choice in choices)


def main():
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
    members = set(metadata["workspace_members"])
    wrong = []
    for package in metadata["packages"]:
        name = f'{package["name"]} {package["version"]}'
        if package["id"] in members:
            for dependency in package["dependencies"]:
                if dependency["name"] in PINNED and not dependency["req"].startswith("="):
                    wrong.append(f'{name} does not pin {dependency["name"]} exactly: {dependency["req"]}')
            continue
        if not (package["source"] or "").startswith("registry+"):
            wrong.append(f'{name} does not come from a registry')
        if not permitted(package["license"] or ""):
            wrong.append(f'{name} has the licence {package["license"]!r}')
        lowest = BANNED.get(package["name"])
        if lowest and tuple(map(int, re.findall(r"\d+", package["version"])[:3])) < lowest:
            wrong.append(f'{name} is banned')
    print(f'{len(metadata["packages"])} packages, {len(wrong)} violations')
    print("\n".join(wrong))
    return 1 if wrong else 0


sys.exit(main())
