#!/bin/sh
# usage: tools/env.sh PYTHON DIR [EXTRA]
#
# Make DIR a virtual environment of PYTHON in which this project and its EXTRA are installed.
# Does nothing when it already is one: what counts is the content of the sources and the build's
# variables, not times, so that a build with other flags is never taken for this one.

set -eu
python=$1 dir=$2 extra=${3:-}

sh tools/preflight.sh "$python"

interpreter=$("$python" -c 'import sys; print(sys._base_executable, sys.version)')
sources=$({
    printf '%s\n' "$interpreter" "${CC-}" "${CFLAGS-}" "${CPPFLAGS-}" "${LDFLAGS-}" \
        "${SLEEPLOOP_WERROR-}" "${SLEEPLOOP_PORTABLE_IDLE-}"
    cat pyproject.toml setup.py _sleeploop* csrc/*/*.h sleeploop/*.py*
} | cksum)

if [ "$(cat "$dir/interpreter" 2>/dev/null)" != "$interpreter" ]; then
    rm -rf "$dir"
    "$python" -m venv "$dir"
    printf '%s\n' "$interpreter" >"$dir/interpreter"
fi

# One line per extra; the line without one means "the project itself".
if [ "$(sed -n 1p "$dir/installed" 2>/dev/null)" != "$sources" ]; then
    rm -rf "$dir/build" "$dir/installed"
elif grep -qx "extra:$extra" "$dir/installed"; then
    exit 0
fi

echo "Building sleeploop${extra:+ and installing [$extra]} in $dir"

# Every environment builds in a directory of its own: setuptools looks only at the times of the
# sources and would happily reuse an object file of another ABI or with other flags.
mkdir -p "$dir/build"
cat >"$dir/build.cfg" <<CFG
[build]
build_base = $dir/build
[egg_info]
egg_base = $dir/build
CFG
# Errors only: a compiler's are among them.
DIST_EXTRA_CONFIG=$dir/build.cfg PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$dir/bin/python" -W ignore -m pip install -qq ".${extra:+[$extra]}"

# `python -m` looks here first. An extension built in place would hide the one just installed.
"$dir/bin/python" - <<'PY'
import importlib.util
import pathlib
import sys

sys.path.insert(0, "")
found = pathlib.Path(importlib.util.find_spec("_sleeploop").origin).resolve()
if pathlib.Path(sys.prefix).resolve() not in found.parents:
    sys.exit(f"sleeploop: {found} hides the extension installed in {sys.prefix}; `make clean` removes it")
PY

[ -f "$dir/installed" ] || {
    printf '%s\n' "$sources"
    echo "extra:"
} >"$dir/installed"
[ -z "$extra" ] || echo "extra:$extra" >>"$dir/installed"
