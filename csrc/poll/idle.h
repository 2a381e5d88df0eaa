/* idle.h: how the loop waits when nothing can run.
 *
 * Four functions over whatever the system offers: open, wait until a monotonic
 * deadline or a wake-up, wake, close. Knows no Python object, and is called
 * without the GIL; errors are returned as errno values.
 *
 * Linux: a timerfd. poll's and ppoll's own timeouts are subject to the thread's
 * timer slack (50 us by default, prctl(2)); a timerfd's expiry is not.
 * Elsewhere, or with SLEEPLOOP_PORTABLE_IDLE: poll to the last whole
 * millisecond, and nanosleep for the rest.
 */
#ifndef SLEEPLOOP_POLL_IDLE_H
#define SLEEPLOOP_POLL_IDLE_H

#include "../base/clock.h"
#include "../base/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#if defined(__linux__) && !defined(SLEEPLOOP_PORTABLE_IDLE)
#define IDLE_TIMERFD
#include <sys/timerfd.h>
#endif

struct idle {
    pid_t owner;         /* the process that opened it; 0 while closed */
    int wake_r, wake_w;  /* a pipe, both ends non-blocking: a byte in it ends a wait */
    int woken;           /* the last wait found the pipe readable */
#ifdef IDLE_TIMERFD
    int timer;
#endif
};

static inline int
idle_is_open(const struct idle *idle)
{
    return idle->owner != 0;
}

static inline void
idle_close(struct idle *idle)
{
    if (!idle_is_open(idle)) {
        return;
    }
    close(idle->wake_r);
    close(idle->wake_w);
#ifdef IDLE_TIMERFD
    close(idle->timer);
#endif
    idle->owner = 0;
}

static inline int
idle_set_flags(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0
           || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0;
}

static inline int
idle_open(struct idle *idle)
{
    int ends[2];
    if (pipe(ends) < 0) {
        return errno;
    }
    int error = 0;
#ifdef IDLE_TIMERFD
    idle->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (idle->timer < 0) {
        error = errno;
        goto failed;
    }
#endif
    if (idle_set_flags(ends[0]) || idle_set_flags(ends[1])) {
        error = errno;
#ifdef IDLE_TIMERFD
        close(idle->timer);
#endif
        goto failed;
    }
    idle->wake_r = ends[0];
    idle->wake_w = ends[1];
    idle->owner = getpid();
    return 0;
failed:
    close(ends[0]);
    close(ends[1]);
    return error;
}

/* Makes the descriptors this process's own. A fork shares them with its parent,
 * and setting a shared timer would move the parent's deadline. */
static inline int
idle_ensure_open(struct idle *idle)
{
    if (idle->owner == getpid()) {
        return 0;
    }
    idle_close(idle);
    return idle_open(idle);
}

/* Ends the wait that is under way, or the next one. Safe in any thread and in a
 * signal handler. A full pipe is as good as another byte. A fork's child leaves its
 * parent's pipe alone. */
static inline void
idle_wake(struct idle *idle)
{
    if (idle->owner == getpid()) {
        ssize_t n;
        do {
            n = write(idle->wake_w, "", 1);
        } while (n < 0 && errno == EINTR);
    }
}

/* Empties the wake-up pipe. The bytes are signal numbers when the pipe served as
 * Python's wake-up descriptor; they are passed on to forward_fd unless it is -1. */
static inline void
idle_drain(struct idle *idle, int forward_fd)
{
    char bytes[64];
    for (;;) {
        ssize_t n = read(idle->wake_r, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        if (forward_fd >= 0) {
            ssize_t ignored = write(forward_fd, bytes, (size_t)n);
            (void)ignored;  /* its owner made it non-blocking, and full means woken */
        }
    }
}

#ifdef IDLE_TIMERFD

/* Waits until `deadline` (CLOCK_MONOTONIC, or TIME_FOREVER), a wake-up or a
 * signal. May return early: the caller looks at its clock. 0 or an errno. */
static inline int
idle_wait(struct idle *idle, int64_t deadline)
{
    struct pollfd fds[2] = {
        {.fd = idle->wake_r, .events = POLLIN},
        {.fd = idle->timer, .events = POLLIN},
    };
    nfds_t n = 1;
    if (deadline != TIME_FOREVER) {
        /* An all-zero time would disarm; a moment in the past fires at once. */
        int64_t at = deadline > 0 ? deadline : 1;
        struct itimerspec spec = {
            .it_value = {.tv_sec = (time_t)(at / NS_PER_SEC), .tv_nsec = (long)(at % NS_PER_SEC)},
        };
        if (timerfd_settime(idle->timer, TFD_TIMER_ABSTIME, &spec, NULL) < 0) {
            return errno;
        }
        n = 2;
    }
    int ready = poll(fds, n, -1);
    idle->woken = ready > 0 && fds[0].revents != 0;
    return ready < 0 && errno != EINTR ? errno : 0;
}

#else

static inline int
idle_wait(struct idle *idle, int64_t deadline)
{
    struct pollfd fd = {.fd = idle->wake_r, .events = POLLIN};
    int64_t left = deadline == TIME_FOREVER ? TIME_FOREVER : deadline - clock_monotonic();
    int timeout = -1;
    if (left != TIME_FOREVER) {
        int64_t ms = left > 0 ? left / (NS_PER_SEC / 1000) : 0;
        timeout = ms < INT_MAX ? (int)ms : INT_MAX;
    }
    int n = poll(&fd, 1, timeout);
    idle->woken = n > 0;
    if (n < 0) {
        return errno != EINTR ? errno : 0;
    }
    if (n == 0 && deadline != TIME_FOREVER) {
        left = deadline - clock_monotonic();
        if (left > 0 && left < NS_PER_SEC / 1000) {
            struct timespec rest = {.tv_nsec = (long)left};
            (void)nanosleep(&rest, NULL);  /* cut short by a signal: the caller looks again */
        }
    }
    return 0;
}

#endif

#endif /* SLEEPLOOP_POLL_IDLE_H */
