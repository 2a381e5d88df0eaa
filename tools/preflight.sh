#!/bin/sh
# usage: tools/preflight.sh PYTHON
#
# Is everything here that a build needs before any package can be installed? If not, one line says
# which Debian packages to install, and the exit status is 1. Silent when all is well.

python=${1:-python3}

die() {
    echo "sleeploop: $*" >&2
    exit 1
}

missing= # Debian packages
because= # what we looked for in vain
lacks() {
    missing="$missing $1"
    because="${because:+$because, }$2"
}

command -v make >/dev/null 2>&1 || lacks make "make"

if "$python" -c '' >/dev/null 2>&1; then
    "$python" -c '
import sys
sys.exit(sys.implementation.name != "cpython" or sys.version_info < (3, 11))
' || die "needs CPython 3.11 or newer, but $python is $("$python" -V 2>&1);" \
        "name another one with 'make PYTHON=/path/to/python3'"

    # Debian names the packages of an interpreter that is not the default one after its version.
    case ${python##*/} in
        python3.*) package=${python##*/} ;;
        *) package=python3 ;;
    esac

    # venv is in the standard library, but only with ensurepip does it come with pip.
    "$python" -c 'import venv; from ensurepip import version' 2>/dev/null ||
        lacks "$package-venv" "the modules venv and ensurepip of $python"

    include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$include/Python.h" ] || lacks "$package-dev" "$include/Python.h"

    # The compiler that setuptools will use: CC, or else the one that built this Python.
    compiler=${CC:-$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}
    if ! command -v "${compiler%% *}" >/dev/null 2>&1; then
        lacks gcc "the C compiler ${compiler%% *}"
    elif [ -f "$include/Python.h" ]; then
        # A compiler may be installed without the C library's headers.
        # shellcheck disable=SC2086  # "gcc -pthread" is two words
        echo '#include <Python.h>' | $compiler -I"$include" -fsyntax-only -x c - >/dev/null 2>&1 ||
            lacks libc6-dev "the C library's headers, which Python.h includes"
    fi
elif [ "$python" = python3 ]; then
    # All that will be missing once python3 is there, so that nobody has to come back twice.
    lacks python3 "python3"
    lacks python3-venv "its module venv"
    lacks python3-dev "Python.h"
    command -v "${CC:-gcc}" >/dev/null 2>&1 || lacks gcc "a C compiler"
else
    die "cannot run the interpreter $python"
fi

[ -z "$missing" ] ||
    die "cannot find $because; on Debian or Ubuntu: apt-get install$missing"
