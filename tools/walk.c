/* walk.c: records which functions of the extension are entered between two marks.
 *
 * The extension is compiled with -finstrument-functions, so that each of its functions calls the
 * two hooks below; the C library has empty ones, before which these come by LD_PRELOAD. The marks,
 * and what was recorded, are functions for ctypes: tools/walk.py calls them. One thread only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

enum { WALK_MAX = 10000 };

static struct { void *function; int depth; } calls[WALK_MAX];
static int n_calls, depth, recording;

void
__cyg_profile_func_enter(void *function, void *call_site)
{
    (void)call_site;
    if (recording && n_calls < WALK_MAX) {
        calls[n_calls].function = function;
        calls[n_calls++].depth = depth;
    }
    depth++;
}

void
__cyg_profile_func_exit(void *function, void *call_site)
{
    (void)function, (void)call_site;
    depth--;
}

void
walk_begin(void)
{
    n_calls = 0;
    recording = 1;
}

void
walk_end(void)
{
    recording = 0;
}

int
walk_calls(void)
{
    return n_calls;
}

int
walk_depth(int i)
{
    return calls[i].depth;
}

/* Where the function stands in its library's file, as `nm` prints it. */
size_t
walk_address(int i)
{
    Dl_info library = {0};
    dladdr(calls[i].function, &library);
    return (size_t)((char *)calls[i].function - (char *)library.dli_fbase);
}
