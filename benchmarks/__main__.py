"""`python -m benchmarks`: every workload on sleeploop and on every peer that is installed."""

from benchmarks import (
    bench_cancel,
    bench_every,
    bench_group,
    bench_lock,
    bench_memory,
    bench_mm1,
    bench_plugin,
    bench_queue,
    bench_realtime,
    bench_spawn,
    bench_switch,
    bench_timeout,
    bench_trace,
    bench_virtual,
    bench_waiters,
)
from benchmarks.harness import main

if __name__ == "__main__":
    main(
        [
            *bench_switch.WORKLOADS,
            *bench_virtual.WORKLOADS,
            *bench_every.WORKLOADS,
            *bench_spawn.WORKLOADS,
            *bench_timeout.WORKLOADS,
            *bench_group.WORKLOADS,
            *bench_cancel.WORKLOADS,
            *bench_lock.WORKLOADS,
            *bench_waiters.WORKLOADS,
            *bench_queue.WORKLOADS,
            *bench_mm1.WORKLOADS,
            *bench_trace.WORKLOADS,
            *bench_memory.WORKLOADS,
            *bench_plugin.WORKLOADS,
            *bench_realtime.WORKLOADS,
        ]
    )
