#!/bin/sh
# usage: tools/werror.sh PYTHON
#
# Compile the extension with gcc and clang, each with and without assertions and with both ways of
# waiting, so that no `#if` hides a warning. Optimised: some warnings need the optimiser's analysis.
# CPython's headers are the system's: their inline functions warn of conversions.

set -u
python=$1
sh tools/preflight.sh "$python" || exit 1
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')

failed=0
for compiler in gcc clang; do
    if ! command -v $compiler >/dev/null 2>&1; then
        echo "$compiler: skipped, not found (Debian package: $compiler)"
        continue
    fi
    for assertions in -DNDEBUG -UNDEBUG; do
        for idle in '' -DSLEEPLOOP_PORTABLE_IDLE=1; do
            echo "$compiler $assertions $idle"
            # shellcheck disable=SC2086  # $idle may be no argument at all
            $compiler -std=c11 -fvisibility=hidden -Wall -Wextra -Wconversion -Wshadow -Werror -O2 \
                -fPIC -isystem "$include" $assertions $idle -c _sleeploop.c -o /dev/null ||
                failed=1
        done
    done
done

# Each header by itself, so that none leans on what another happens to have included before it.
for header in csrc/*/*.h; do
    if ! cc -std=c11 -Wall -Wextra -Wno-unused -Werror -isystem "$include" -fsyntax-only -x c "$header"
    then
        failed=1
    fi
done
exit $failed
