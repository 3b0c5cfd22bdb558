/* sys_win.h - the POSIX names that the sources use, for 64-bit Windows (mingw-w64). The build includes this file
 * before every source of a Windows target and nowhere else; sys_win.c has the functions. Paths and arguments are
 * UTF-8, files binary, rename replaces, and only what the sources need is here.
 */
#ifndef ASH_BASE_SYS_WIN_H
#define ASH_BASE_SYS_WIN_H

#include <direct.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* ---- files ---- */
#ifndef O_CLOEXEC
#define O_CLOEXEC _O_NOINHERIT
#endif
#ifndef EDQUOT
#define EDQUOT ENOSPC
#endif
int ash_win_open(const char *path, int flags, ...);
FILE *ash_win_fopen(const char *path, const char *mode); /* binary unless "t"; "e" is understood */
int ash_win_unlink(const char *path);
int ash_win_rename(const char *from, const char *to);
int ash_win_mkdir(const char *path, int mode);
int ash_win_access(const char *path, int mode);
int ash_win_stat(const char *path, struct _stat64 *st);
int ash_win_mkostemp(char *path, int flags); /* path ends in XXXXXX */
char *ash_win_realpath(const char *path, char *must_be_null); /* with forward slashes */
ssize_t ash_win_readlink(const char *path, char *buf, size_t n); /* of /proc/self/exe only */
#define open ash_win_open
#define fopen ash_win_fopen
#define unlink ash_win_unlink
#define rename ash_win_rename
#define mkdir(path, mode) ash_win_mkdir(path, mode)
#define access ash_win_access
#define stat _stat64
#define fstat _fstat64
#define _stat64(path, st) ash_win_stat(path, st)
#define mkostemp ash_win_mkostemp
#define realpath ash_win_realpath
#define readlink ash_win_readlink
#define lstat(path, st) ash_win_stat(path, st)
#define fsync _commit
#define fchmod(fd, mode) ((void)(fd), (void)(mode))

/* advice on mapped pages is not passed on: this system trims working sets by itself */
enum { MADV_DONTNEED, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED };
#define madvise(p, n, advice) ((void)(p), (void)(n), (void)(advice))

/* ---- strings, sorting ---- */
void *ash_win_memmem(const void *hay, size_t n_hay, const void *needle, size_t n_needle);
char *ash_win_strndup(const char *s, size_t n);
ssize_t ash_win_getline(char **line, size_t *cap, FILE *f);
void ash_win_qsort_r(void *base, size_t n, size_t size, int (*cmp)(const void *, const void *, void *), void *arg);
#define memmem ash_win_memmem
#define strndup ash_win_strndup
#define getline ash_win_getline
#define qsort_r ash_win_qsort_r

/* ---- numbers: this C library's fmaf and fma round twice ---- */
float ash_win_fmaf(float x, float y, float z);
double ash_win_fma(double x, double y, double z);
#define fmaf(x, y, z) ash_win_fmaf(x, y, z)
#define fma(x, y, z) ash_win_fma(x, y, z)

/* ---- time ---- */
struct tm *ash_win_localtime_r(const time_t *t, struct tm *out);
#define localtime_r ash_win_localtime_r
#define timegm _mkgmtime64

/* ---- process ---- */
enum { _SC_PAGESIZE, _SC_PHYS_PAGES };
long ash_win_sysconf(int name);
#define sysconf ash_win_sysconf
#ifndef SIGPIPE
#define SIGPIPE 13 /* never raised; signal() refuses it, which nobody minds */
#endif
#ifndef SIGXFSZ
#define SIGXFSZ 25
#endif
struct sigaction {
    void (*sa_handler)(int);
    int sa_mask, sa_flags;
};
int ash_win_sigaction(int sig, const struct sigaction *sa, struct sigaction *old);
#define sigaction(sig, sa, old) ash_win_sigaction(sig, sa, old)
#undef sigemptyset
#define sigemptyset(mask) ((void)(*(mask) = 0))
struct rusage {
    int64_t ru_maxrss; /* KiB */
};
enum { RUSAGE_SELF };
int ash_win_getrusage(int who, struct rusage *ru);
#define getrusage ash_win_getrusage
int ash_win_columns(void); /* of the console on standard error, 0 if it is none */

/* main's arguments as UTF-8; also makes the three standard streams binary and the console UTF-8. Never fails: what
 * cannot be converted stays as it is. */
void ash_win_main(int *argc, char ***argv);

#endif
