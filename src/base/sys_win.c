/* sys_win.c - the operating system's part on 64-bit Windows: what map.c, range.c and sys.c have for POSIX systems, and the
 * functions behind the names of sys_win.h. Paths cross this file as UTF-8 and become UTF-16 here.
 */
#ifdef _WIN32

#include "base/base.h"
#include "base/sys_win.h"

#include <limits.h>
#include <windows.h>

#include <psapi.h>
#include <shellapi.h>

/* ---- UTF-16 ---- */
/* NULL with errno set when the text is no UTF-8 or memory is short. free() it. */
static wchar_t *wide(const char *s) {
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, s, -1, NULL, 0);
    wchar_t *w = n > 0 ? malloc((size_t)n * sizeof *w) : NULL;
    if (w) MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, s, -1, w, n);
    else errno = n > 0 ? ENOMEM : EINVAL;
    return w;
}

static char *narrow(const wchar_t *w) {
    int n = WideCharToMultiByte(CP_UTF8, 0, w, -1, NULL, 0, NULL, NULL);
    char *s = n > 0 ? malloc((size_t)n) : NULL;
    if (s) WideCharToMultiByte(CP_UTF8, 0, w, -1, s, n, NULL, NULL);
    return s;
}

static void slashes(char *s) {
    for (; *s; s++)
        if (*s == '\\') *s = '/';
}

static int set_errno(DWORD e) {
    switch (e) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME: errno = ENOENT; break;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION: errno = EACCES; break;
    case ERROR_ALREADY_EXISTS:
    case ERROR_FILE_EXISTS: errno = EEXIST; break;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: errno = ENOSPC; break;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_COMMITMENT_LIMIT: errno = ENOMEM; break;
    default: errno = EIO;
    }
    return -1;
}

/* ---- files ---- */
int ash_win_open(const char *path, int flags, ...) {
    wchar_t *w = wide(path);
    int fd = w ? _wopen(w, flags | _O_BINARY, _S_IREAD | _S_IWRITE) : -1;
    free(w);
    return fd;
}

FILE *ash_win_fopen(const char *path, const char *mode) {
    wchar_t m[8], *w = wide(path);
    size_t n = 0;
    bool text = false;
    for (; *mode && n < 6; mode++) {
        if (*mode == 't') text = true;
        if (*mode != 'e' && *mode != 'b') m[n++] = (wchar_t)*mode;
    }
    if (!text) m[n++] = L'b';
    m[n] = 0;
    FILE *f = w ? _wfopen(w, m) : NULL;
    free(w);
    return f;
}

int ash_win_unlink(const char *path) {
    wchar_t *w = wide(path);
    int rc = w ? _wunlink(w) : -1;
    free(w);
    return rc;
}

int ash_win_rename(const char *from, const char *to) {
    wchar_t *a = wide(from), *b = a ? wide(to) : NULL;
    int rc = -1;
    if (b) rc = MoveFileExW(a, b, MOVEFILE_REPLACE_EXISTING) ? 0 : set_errno(GetLastError());
    free(a);
    free(b);
    return rc;
}

int ash_win_mkdir(const char *path, int mode) {
    (void)mode;
    wchar_t *w = wide(path);
    int rc = w ? _wmkdir(w) : -1;
    free(w);
    return rc;
}

int ash_win_access(const char *path, int mode) {
    wchar_t *w = wide(path);
    int rc = w ? _waccess(w, mode & ~1) : -1; /* 1 asks for the right to execute, which the C library refuses to hear */
    free(w);
    return rc;
}

int ash_win_stat(const char *path, struct _stat64 *st) {
    wchar_t *w = wide(path);
    int rc = w ? _wstat64(w, st) : -1;
    free(w);
    return rc;
}

int ash_win_mkostemp(char *path, int flags) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static _Atomic uint64_t count;
    size_t n = strlen(path);
    if (n < 6) return errno = EINVAL, -1;
    for (int attempt = 0; attempt < 100; attempt++) {
        uint64_t h = (uint64_t)GetCurrentProcessId() << 32 ^ GetTickCount64() ^ ++count * 0x9e3779b97f4a7c15u;
        for (size_t i = n - 6; i < n; i++, h /= 36) path[i] = letters[h % 36];
        int fd = ash_win_open(path, flags | O_RDWR | O_CREAT | O_EXCL);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

char *ash_win_realpath(const char *path, char *must_be_null) {
    (void)must_be_null;
    wchar_t *w = wide(path), *full = w ? _wfullpath(NULL, w, 0) : NULL;
    char *s = full && _waccess(full, 0) == 0 ? narrow(full) : NULL;
    free(w);
    free(full);
    if (s) slashes(s);
    return s;
}

ssize_t ash_win_readlink(const char *path, char *buf, size_t n) {
    wchar_t w[4096];
    if (strcmp(path, "/proc/self/exe") != 0) return errno = EINVAL, -1;
    DWORD len = GetModuleFileNameW(NULL, w, (DWORD)ASH_ARRAY_LEN(w));
    char *s = len && len < ASH_ARRAY_LEN(w) ? narrow(w) : NULL;
    if (!s) return -1;
    slashes(s);
    size_t k = ASH_MIN(strlen(s), n);
    memcpy(buf, s, k);
    free(s);
    return (ssize_t)k;
}

/* ---- mappings (map.c) ---- */
static ash_status win_fail(ash_error *err, const char *what, const char *path) {
    set_errno(GetLastError());
    return ash_io_fail(err, what, path);
}

ash_status ash_map_open(ash_map *m, const char *path, ash_error *err) {
    *m = (ash_map){0};
    wchar_t *w = wide(path);
    if (!w) return ash_io_fail(err, "open", path);
    HANDLE f = CreateFileW(w, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL), v = NULL;
    free(w);
    if (f == INVALID_HANDLE_VALUE) return win_fail(err, "open", path);
    LARGE_INTEGER size;
    ash_status s = ASH_OK;
    if (GetFileType(f) != FILE_TYPE_DISK) s = ash_fail(err, ASH_E_IO, "cannot open %s: not a regular file", path);
    else if (!GetFileSizeEx(f, &size)) s = win_fail(err, "stat", path);
    else if (!(m->path = ash_strdup(path))) s = ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    else if (size.QuadPart > 0) {
        v = CreateFileMappingW(f, NULL, PAGE_READONLY, 0, 0, NULL);
        m->p = v ? MapViewOfFile(v, FILE_MAP_READ, 0, 0, 0) : NULL;
        if (!m->p) s = win_fail(err, "map", path);
        else m->n = (uint64_t)size.QuadPart;
    }
    if (v) CloseHandle(v); /* the view keeps the mapping alive */
    CloseHandle(f);
    if (s != ASH_OK) ash_map_close(m);
    return s;
}

void ash_map_close(ash_map *m) {
    if (m->p) UnmapViewOfFile(m->p);
    ash_free(m->path);
    *m = (ash_map){0};
}

ash_status ash_spill_map(const char *dir, uint64_t n, void **p, ash_error *err) {
    *p = NULL;
    ash_buf path = {0};
    ash_buf_addf(&path, "%s/.ashlar-spill-XXXXXX", dir && *dir ? dir : ".");
    if (!ash_buf_ok(&path)) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    /* deleted when its last handle and view are gone */
    int fd = ash_win_mkostemp(path.p, _O_TEMPORARY | _O_NOINHERIT);
    ash_status s = ASH_OK;
    if (fd < 0) s = ash_io_fail(err, "create", path.p);
    else {
        uint64_t size = n ? n : 1;
        HANDLE v = CreateFileMappingW((HANDLE)_get_osfhandle(fd), NULL, PAGE_READWRITE, (DWORD)(size >> 32), (DWORD)size, NULL);
        if (v) *p = MapViewOfFile(v, FILE_MAP_WRITE, 0, 0, 0);
        if (!*p) s = win_fail(err, "reserve spill space in", path.p);
        if (v) CloseHandle(v);
        _close(fd);
    }
    ash_buf_free(&path);
    return s;
}

void ash_spill_unmap(void *p, uint64_t n) {
    (void)n;
    if (p) UnmapViewOfFile(p);
}

/* ---- parts of mappings (range.c) ---- */
/* This system trims working sets by itself: the two hints are not passed on. */
ash_status ash_range_use(const void *p, uint64_t n, ash_range_how how, ash_error *err) {
    void *at = (void *)(uintptr_t)p;
    SIZE_T lo, hi;
    switch (how) {
    case ASH_RANGE_RANDOM:
    case ASH_RANGE_FORGET: return ASH_OK;
    case ASH_RANGE_POPULATE:
        for (uint64_t i = 0; i < n; i += 4096) (void)*((const volatile char *)p + i);
        return ASH_OK;
    case ASH_RANGE_LOCK: /* what may be locked is bounded by the working set's floor, which a process may raise itself */
        if (n == 0) return ASH_OK;
        if (GetProcessWorkingSetSize(GetCurrentProcess(), &lo, &hi)) SetProcessWorkingSetSize(GetCurrentProcess(), lo + n, hi + n);
        if (VirtualLock(at, n)) return ASH_OK;
        return ash_fail(err, ASH_E_LIMIT, "cannot lock %llu bytes in memory (system error %lu)", (unsigned long long)n, GetLastError());
    case ASH_RANGE_HUGE: return ash_fail(err, ASH_E_UNSUPPORTED, "Windows has no huge pages for mapped files");
    }
    return ASH_OK;
}

ash_status ash_zero_map(uint64_t n, void **p, ash_error *err) {
    *p = VirtualAlloc(NULL, n ? n : 1, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    return *p ? ASH_OK : ash_fail(err, ASH_E_LIMIT, "%llu bytes of address space cannot be had", (unsigned long long)n);
}

void ash_zero_unmap(void *p, uint64_t n) {
    (void)n;
    if (p) VirtualFree(p, 0, MEM_RELEASE);
}

/* ---- strings, sorting ---- */
void *ash_win_memmem(const void *hay, size_t n_hay, const void *needle, size_t n_needle) {
    const char *h = hay, *end = h + n_hay;
    if (n_needle == 0) return (void *)(uintptr_t)h;
    for (; (size_t)(end - h) >= n_needle; h++) {
        h = memchr(h, *(const char *)needle, (size_t)(end - h) - n_needle + 1);
        if (!h) return NULL;
        if (memcmp(h, needle, n_needle) == 0) return (void *)(uintptr_t)h;
    }
    return NULL;
}

char *ash_win_strndup(const char *s, size_t n) {
    n = strnlen(s, n);
    char *d = malloc(n + 1);
    if (!d) return NULL;
    memcpy(d, s, n);
    d[n] = 0;
    return d;
}

ssize_t ash_win_getline(char **line, size_t *cap, FILE *f) {
    size_t n = 0;
    int c;
    while ((c = getc(f)) != EOF) {
        if (n + 2 > *cap) {
            size_t want = *cap ? *cap * 2 : 256;
            char *p = realloc(*line, want);
            if (!p) return -1;
            *line = p;
            *cap = want;
        }
        (*line)[n++] = (char)c;
        if (c == '\n') break;
    }
    if (n == 0) return -1;
    (*line)[n] = 0;
    return (ssize_t)n;
}

/* The C library's qsort with the argument kept per thread; no comparison of ours sorts. */
static _Thread_local struct {
    int (*cmp)(const void *, const void *, void *);
    void *arg;
} sorting;
static int compare(const void *a, const void *b) { return sorting.cmp(a, b, sorting.arg); }

void ash_win_qsort_r(void *base, size_t n, size_t size, int (*cmp)(const void *, const void *, void *), void *arg) {
    sorting.cmp = cmp;
    sorting.arg = arg;
    qsort(base, n, size, compare);
}

/* ---- numbers ---- */
__attribute__((target("fma"))) static float fmaf_hw(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
__attribute__((target("fma"))) static double fma_hw(double x, double y, double z) { return __builtin_fma(x, y, z); }

/* The product of two floats is exact in double; the sum is rounded to odd there, so that rounding it to float once more
 * is right (Boldo, Melquiond: Emulation of FMA and correctly rounded sums, 2008). */
static float fmaf_exact(float x, float y, float z) {
    double p = (double)x * (double)y, s = p + (double)z;
    if (!isfinite(s)) return (float)s;
    double part = s - p, error = (p - (s - part)) + ((double)z - part);
    uint64_t bits;
    memcpy(&bits, &s, 8);
    if (error != 0 && !(bits & 1)) {
        bits += (error > 0) == (s > 0) ? 1 : (uint64_t)-1;
        memcpy(&s, &bits, 8);
    }
    return (float)s;
}

float ash_win_fmaf(float x, float y, float z) { return __builtin_cpu_supports("fma") ? fmaf_hw(x, y, z) : fmaf_exact(x, y, z); }
/* Without the instruction the last bit of a sum in double may differ from other systems'. */
double ash_win_fma(double x, double y, double z) { return __builtin_cpu_supports("fma") ? fma_hw(x, y, z) : (fma)(x, y, z); }

/* ---- process ---- */
struct tm *ash_win_localtime_r(const time_t *t, struct tm *out) { return localtime_s(out, t) == 0 ? out : NULL; }

long ash_win_sysconf(int name) {
    MEMORYSTATUSEX m = {.dwLength = sizeof m};
    if (name == _SC_PAGESIZE) return 4096;
    return name == _SC_PHYS_PAGES && GlobalMemoryStatusEx(&m) ? (long)(m.ullTotalPhys / 4096) : -1;
}

int ash_cpu_count(void) {
    DWORD_PTR mine, all;
    int n = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        for (; mine; mine &= mine - 1) n++;
    return n < 1 ? 1 : n;
}

int ash_win_sigaction(int sig, const struct sigaction *sa, struct sigaction *old) {
    (void)old;
    return signal(sig, sa->sa_handler) == SIG_ERR ? -1 : 0;
}

int ash_win_getrusage(int who, struct rusage *ru) {
    (void)who;
    PROCESS_MEMORY_COUNTERS c = {.cb = sizeof c};
    *ru = (struct rusage){0};
    if (!K32GetProcessMemoryInfo(GetCurrentProcess(), &c, sizeof c)) return -1;
    ru->ru_maxrss = (int64_t)(c.PeakWorkingSetSize / 1024);
    return 0;
}

int ash_win_columns(void) {
    CONSOLE_SCREEN_BUFFER_INFO i;
    return GetConsoleScreenBufferInfo(GetStdHandle(STD_ERROR_HANDLE), &i) ? i.srWindow.Right - i.srWindow.Left + 1 : 0;
}

void ash_win_main(int *argc, char ***argv) {
    for (int fd = 0; fd < 3; fd++) _setmode(fd, _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
    SetConsoleCP(CP_UTF8);
    int n;
    wchar_t **w = CommandLineToArgvW(GetCommandLineW(), &n);
    char **v = w ? calloc((size_t)n + 1, sizeof *v) : NULL; /* lives as long as the process */
    if (!v) return;
    for (int i = 0; i < n; i++)
        if (!(v[i] = narrow(w[i]))) return;
    LocalFree(w);
    *argc = n;
    *argv = v;
}

#else
typedef int ash_sys_win_unused; /* a translation unit is never empty */
#endif
