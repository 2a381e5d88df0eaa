/* failalloc: let memory allocations fail, but only those that _sleeploop makes.
 *
 * A test tool for tests/rigs/oom.py, which compiles it. CPython's own such tool,
 * _testcapi.set_nomemory, fails every allocation, and CPython has faults of its own
 * when its interpreter loop runs out of memory: exceptions get lost, handlers are
 * entered for ever, some versions crash. Among those ours would be hard to see.
 *
 * An allocation is made by _sleeploop if, on the way out along the C stack, its code is
 * met before the interpreter loop: PyUnicode_FromFormat called by us counts, what a
 * coroutine does that we resume does not. The interpreter loop is recognised by our own
 * function around it, the hook of PEP 523.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <unwind.h>

struct range {
    uintptr_t start, end;
};

static struct range ours, tool;  /* the code of _sleeploop, and of this file */
static Py_ssize_t counted;       /* allocations of ours since arm() */
static Py_ssize_t fail_from, fail_until;
static int armed;

static int
within(struct range range, uintptr_t address)
{
    return range.start <= address && address < range.end;
}

struct walk {
    int left_tool;  /* past the hook's own frames, the innermost ones */
    int is_ours;
};

static _Unwind_Reason_Code
visit_frame(struct _Unwind_Context *context, void *arg)
{
    struct walk *walk = arg;
    uintptr_t address = _Unwind_GetIP(context);
    if (within(tool, address)) {
        return walk->left_tool ? _URC_END_OF_STACK : _URC_NO_REASON;
    }
    walk->left_tool = 1;
    walk->is_ours = within(ours, address);
    return walk->is_ours ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* A place for a debugger's breakpoint: the stack above shows what is about to fail. */
static void
failing_now(void)
{
}

static int
must_fail(void)
{
    struct walk walk = {0, 0};
    if (!armed) {
        return 0;
    }
    _Unwind_Backtrace(visit_frame, &walk);
    if (!walk.is_ours) {
        return 0;
    }
    Py_ssize_t number = counted++;
    if (number < fail_from || number >= fail_until) {
        return 0;
    }
    failing_now();
    return 1;
}

/* ---- the hooks ------------------------------------------------------------- */

enum { DOMAINS = 3 };
static const PyMemAllocatorDomain domains[DOMAINS] = {
    PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ,
};
static PyMemAllocatorEx real[DOMAINS];

static void *
hook_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return must_fail() ? NULL : next->malloc(next->ctx, size);
}

static void *
hook_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return must_fail() ? NULL : next->calloc(next->ctx, count, size);
}

static void *
hook_realloc(void *ctx, void *block, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return must_fail() ? NULL : next->realloc(next->ctx, block, size);
}

static void
hook_free(void *ctx, void *block)
{
    PyMemAllocatorEx *next = ctx;
    next->free(next->ctx, block);
}

/* Its frame marks where the interpreter loop begins, so it must not be optimised away. */
static PyObject *
marked_eval(PyThreadState *tstate, struct _PyInterpreterFrame *frame, int throw)
{
    return _PyEval_EvalFrameDefault(tstate, frame, throw);
}

/* ---- the module ------------------------------------------------------------ */

static int
find_code(struct dl_phdr_info *info, size_t Py_UNUSED(size), void *Py_UNUSED(arg))
{
    const char *name = strrchr(info->dlpi_name, '/');
    name = name != NULL ? name + 1 : info->dlpi_name;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_X)) {
            continue;
        }
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        struct range code = {start, start + header->p_memsz};
        if (within(code, (uintptr_t)find_code)) {
            tool = code;
        }
        else if (strncmp(name, "_sleeploop.", strlen("_sleeploop.")) == 0) {
            ours = code;
        }
    }
    return 0;
}

PyDoc_STRVAR(arm_doc,
"arm(start, stop)\n"
"\n"
"Count the allocations of _sleeploop from 0, and let those from start up to stop fail.");

static PyObject *
arm(PyObject *Py_UNUSED(module), PyObject *args)
{
    if (!PyArg_ParseTuple(args, "nn", &fail_from, &fail_until)) {
        return NULL;
    }
    counted = 0;
    armed = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(disarm_doc, "disarm()\n\nHow many there were.");

static PyObject *
disarm(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    armed = 0;
    return PyLong_FromSsize_t(counted);
}

static PyMethodDef methods[] = {
    {"arm", arm, METH_VARARGS, arm_doc},
    {"disarm", disarm, METH_NOARGS, disarm_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "failalloc", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_failalloc(void)
{
    dl_iterate_phdr(find_code, NULL);
    if (ours.start == 0) {
        PyErr_SetString(PyExc_ImportError, "import _sleeploop first");
        return NULL;
    }
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), marked_eval);
    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx hook = {&real[i], hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_GetAllocator(domains[i], &real[i]);
        PyMem_SetAllocator(domains[i], &hook);
    }
    return PyModule_Create(&definition);
}
