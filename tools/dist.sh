#!/bin/sh
# usage: tools/dist.sh PYTHON
#
# Build the sdist, and the wheel from it, into dist/. Then install each in a clean environment and
# try it from another directory, where nothing of this checkout can be imported by accident.

set -eu
python=$1
sh tools/preflight.sh "$python"
here=$PWD
env=.envs/dist

rm -rf dist "$env"
"$python" -m venv "$env"
"$env/bin/python" -m pip install -qq --disable-pip-version-check build
"$env/bin/python" -m build --outdir dist . >"$env/build.log" 2>&1 || {
    cat "$env/build.log"
    exit 1
}

for archive in dist/*; do
    "$python" -m venv --clear "$env"
    "$env/bin/python" -m pip install -qq --disable-pip-version-check "$archive"
    "$env/bin/python" -m pip check
    (
        cd /
        "$here/$env/bin/python" -I - "${archive##*/}" <<'PY'
import importlib.metadata
import math
import sys

import sleeploop


async def nap():
    return await sleeploop.sleep(3600)


slept = sleeploop.run(nap(), speed=math.inf)
assert slept.total_seconds() == 3600, slept
version = importlib.metadata.version("sleeploop")
assert f"-{version}" in sys.argv[1], sys.argv[1]
print(f"{sys.argv[1]}: sleeploop {version} installed and tried")
PY
    )
done
