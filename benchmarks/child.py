"""One measurement in a process of its own: arguments in, one line of JSON out.

`python -m benchmarks.child PEER` answers with the peer's version;
`python -m benchmarks.child PEER MODULE VIRTUAL SIZE` with what MODULE's `measure` returns.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import NoReturn

from benchmarks.peers import PEERS


def answer(result: object) -> NoReturn:
    """Answer and leave at once: tearing down a million sleepers is not part of any figure."""
    print(json.dumps(result), flush=True)
    os._exit(0)


def main(name: str, module: str = "", virtual: str = "", size: str = "{}") -> NoReturn:
    peer = PEERS[name](virtual == "virtual")
    if not module:
        answer(peer.version())
    answer(import_module(module).measure(peer, **json.loads(size)))


if __name__ == "__main__":
    main(*sys.argv[1:])
