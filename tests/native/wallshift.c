/* wallshift.c: a system whose wall clock can be set: preloaded, it adds `wall_shift` nanoseconds to
 * what CLOCK_REALTIME reads. The other clocks are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

long long wall_shift;

int
clock_gettime(clockid_t id, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    }
    int rc = real(id, ts);
    if (rc == 0 && id == CLOCK_REALTIME) {
        long long ns = ts->tv_nsec + wall_shift % 1000000000;
        ts->tv_sec += wall_shift / 1000000000 + (ns >= 1000000000) - (ns < 0);
        ts->tv_nsec = ns - 1000000000 * (ns >= 1000000000) + 1000000000 * (ns < 0);
    }
    return rc;
}
