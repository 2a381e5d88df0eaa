#!/bin/sh
# usage: tests/rigs/asan.sh PYTHON ARGUMENTS...
#
# Run a stock Python whose _sleeploop was built with -fsanitize=address,undefined. Aborts (134) at
# the first finding. `make asan` builds and runs.

set -eu
python=$1

# The runtime must be loaded before anything else. Which one the compiler used, gcc's or clang's,
# the extension itself says.
extension=$("$python" -c 'import importlib.util as u; print(u.find_spec("_sleeploop").origin)')
runtime=$(ldd "$extension" | awk '/lib(clang_rt\.)?asan/ { print $3; exit }')
if [ ! -f "$runtime" ]; then
    echo "asan.sh: $extension is not instrumented, or its runtime cannot be found" >&2
    exit 2
fi

# Python's own allocator would hide the borders of small objects.
export PYTHONMALLOC=malloc
# A finding is reported by the sanitizer, not by faulthandler's idea of it.
export PYTHONFAULTHANDLER=
export LD_PRELOAD="$runtime${LD_PRELOAD:+:$LD_PRELOAD}"
# Python keeps memory until its end on purpose: detect_leaks would report only that. An allocation
# that is too large must fail, as it does without the sanitizer.
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_string_checks=1:handle_segv=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"

exec "$@"
