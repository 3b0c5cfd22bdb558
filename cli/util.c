/* util.c - what commands share: messages, the progress line, byte sizes, shipped data files, Ctrl-C. */
#include "opt.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#ifndef _WIN32
#include <sys/ioctl.h>
#endif
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- messages ---- */
int cli_fail(const ash_error *err, ash_status s) {
    cli_progress_done();
    fflush(stdout);
    const char *msg = err && err->msg[0] ? err->msg : ash_status_text(s);
    fprintf(stderr, "ashlar%s%s: %s\n", *g_verb ? " " : "", g_verb, msg);
    return ash_status_exit(s);
}

int cli_usage(const char *fmt, ...) {
    cli_progress_done();
    char msg[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    for (char *c = msg; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    fprintf(stderr, "ashlar%s%s: %s (see `ashlar%s%s --help`)\n", *g_verb ? " " : "", g_verb, msg, *g_verb ? " " : "", g_verb);
    return 2;
}

/* ---- Ctrl-C ---- */
volatile int g_interrupted;

static void on_signal(int sig) {
    if (g_interrupted) _exit(128 + sig); /* the second one means it; outputs are written beside and renamed */
    g_interrupted = 1;
}

void cli_catch_sigint(void) {
    struct sigaction sa = {.sa_handler = on_signal}; /* no SA_RESTART: a blocked read returns and sees the flag */
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

/* ---- progress: one line on stderr, at most ten times a second, one kept line per finished stage ---- */
static struct {
    bool shown;
    char stage[48];
    double t_start, t_last, done, total;
} bar;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool cli_is_tty(FILE *f) { return isatty(fileno(f)) == 1; }

static int columns(void) {
#ifdef _WIN32
    int n = ash_win_columns();
#else
    struct winsize w;
    int n = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 ? w.ws_col : 0;
#endif
    return n > 20 ? n : 80;
}

static void clock_text(double s, char *buf, size_t n) {
    if (!(s >= 0) || s > 359999)
        snprintf(buf, n, "--:--");
    else if (s < 3600)
        snprintf(buf, n, "%d:%02d", (int)s / 60, (int)s % 60);
    else
        snprintf(buf, n, "%d:%02d:%02d", (int)s / 3600, (int)s / 60 % 60, (int)s % 60);
}

static void draw(const char *note) {
    char line[320], meter[32] = "", t[16], eta[16];
    double dt = bar.t_last - bar.t_start, frac = bar.total > 0 ? bar.done / bar.total : 0;
    if (!(frac >= 0)) frac = 0;
    if (frac > 1) frac = 1;
    for (int i = 0; i < 20; i++) meter[i] = i < (int)(frac * 20) ? '#' : '.';
    meter[20] = 0;
    clock_text(dt, t, sizeof t);
    clock_text(frac > 0.01 && dt > 0.5 ? dt * (1 - frac) / frac : -1, eta, sizeof eta);
    if (bar.total > 0)
        snprintf(line, sizeof line, "%s [%s] %3d%%  %s, %s left%s%s", bar.stage, meter, (int)(frac * 100), t, eta, note ? "  " : "",
                 note ? note : "");
    else
        snprintf(line, sizeof line, "%s  %s%s%s", bar.stage, t, note ? "  " : "", note ? note : "");
    size_t max = (size_t)columns() - 1;
    if (strlen(line) > max) {
        while (max && ((unsigned char)line[max] & 0xc0) == 0x80) max--; /* not inside a UTF-8 character */
        line[max] = 0;
    }
    fprintf(stderr, "\r%s\x1b[K", line);
    fflush(stderr);
    bar.shown = true;
}

/* Leave a line for the stage that ended. */
static void end_stage(void) {
    if (!bar.stage[0]) return;
    if (bar.shown && bar.t_last - bar.t_start >= 0.5)
        fprintf(stderr, "\r%-24s %6.1f s\x1b[K\n", bar.stage, bar.t_last - bar.t_start);
    else if (bar.shown)
        fprintf(stderr, "\r\x1b[K");
    bar.shown = false;
    bar.stage[0] = 0;
}

static bool on_progress(void *ctx, const char *stage, double done, double total, const char *note) {
    static int tty = -1;
    (void)ctx;
    if (tty < 0) tty = cli_is_tty(stderr);
    if (tty) {
        double t = now();
        bool fresh = strncmp(stage, bar.stage, sizeof bar.stage - 1) != 0;
        if (fresh) {
            bar.t_last = t;
            end_stage();
            snprintf(bar.stage, sizeof bar.stage, "%s", stage);
            bar.t_start = t;
        }
        bar.done = done;
        bar.total = total;
        if (fresh || t - bar.t_last > 0.1 || (total > 0 && done >= total)) {
            bar.t_last = t;
            draw(note);
        }
    }
    return !g_interrupted;
}

ash_progress cli_progress(void) { return (ash_progress){on_progress, NULL}; }

void cli_progress_done(void) {
    if (!bar.stage[0]) return;
    bar.t_last = now();
    end_stage();
    fflush(stderr);
}

/* ---- byte sizes ---- */
const char *cli_bytes(uint64_t n, char *buf) {
    if (n < 1000)
        snprintf(buf, 32, "%d B", (int)n);
    else if (n < 1000000)
        snprintf(buf, 32, "%.1f kB", (double)n / 1e3);
    else if (n < 1000000000)
        snprintf(buf, 32, "%.1f MB", (double)n / 1e6);
    else
        snprintf(buf, 32, "%.2f GB", (double)n / 1e9);
    return buf;
}

bool cli_parse_bytes(const char *s, int64_t *out) {
    static const struct {
        const char *name;
        double scale;
    } unit[] = {{"", 1},
                {"B", 1},
                {"k", 1e3},
                {"kB", 1e3},
                {"M", 1e6},
                {"MB", 1e6},
                {"G", 1e9},
                {"GB", 1e9},
                {"T", 1e12},
                {"TB", 1e12},
                {"Ki", 1024},
                {"KiB", 1024},
                {"Mi", 1048576},
                {"MiB", 1048576},
                {"Gi", 1073741824},
                {"GiB", 1073741824},
                {"Ti", 1099511627776},
                {"TiB", 1099511627776}};
    if (!((*s >= '0' && *s <= '9') || *s == '.')) return false; /* no sign, no inf, no hex */
    if (s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) return false;
    char *end;
    double x = strtod(s, &end);
    if (end == s) return false;
    while (*end == ' ') end++;
    for (size_t i = 0; i < sizeof unit / sizeof unit[0]; i++)
        if (strcasecmp(end, unit[i].name) == 0) {
            x = floor(x * unit[i].scale + 1e-6);
            if (!(x >= 0 && x < 9e18)) return false;
            return *out = (int64_t)x, true;
        }
    return false;
}

/* ---- output files ---- */
static ash_status out_fail(const char *path, int e, ash_error *err) {
    ash_status st = e == ENOSPC || e == EDQUOT || e == EFBIG ? ASH_E_LIMIT : ASH_E_IO;
    return ash_fail(err, st, "cannot write %s: %s", path, strerror(e ? e : EIO));
}

ash_status cli_out_failed(const cli_out *o, ash_error *err) { return out_fail(o->path, errno, err); }

ash_status cli_out_open(cli_out *o, const char *path, ash_error *err) {
    struct stat sb;
    *o = (cli_out){.path = path};
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) return out_fail(path, EISDIR, err);
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode)) return (o->f = fopen(path, "wbe")) ? ASH_OK : out_fail(path, errno, err);
    if (asprintf(&o->tmp, "%s.tmp-XXXXXX", path) < 0) {
        o->tmp = NULL;
        return ash_fail(err, ASH_E_NOMEM, "out of memory opening %s", path);
    }
    int fd = mkostemp(o->tmp, O_CLOEXEC);
    if (fd >= 0 && (o->f = fdopen(fd, "wb"))) {
        mode_t m = umask(0);
        umask(m);
        fchmod(fd, 0666 & ~m);
        return ASH_OK;
    }
    int e = errno;
    if (fd >= 0) {
        close(fd);
        unlink(o->tmp);
    }
    free(o->tmp);
    *o = (cli_out){0};
    return out_fail(path, e, err);
}

ash_status cli_out_close(cli_out *o, ash_status st, ash_error *err) {
    if (!o->f) return st;
    bool lost = ferror(o->f) != 0;
    errno = 0;
    if ((fclose(o->f) != 0 || lost) && st == ASH_OK) st = out_fail(o->path, errno, err);
    if (o->tmp && st == ASH_OK && rename(o->tmp, o->path) != 0) st = out_fail(o->path, errno, err);
    if (o->tmp && st != ASH_OK) unlink(o->tmp);
    free(o->tmp);
    *o = (cli_out){0};
    return st;
}

ash_status cli_out_check(const char *path, ash_error *err) {
    cli_out o;
    struct stat sb;
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode) && !S_ISDIR(sb.st_mode)) return ASH_OK; /* opening a pipe would block */
    ASH_TRY(cli_out_open(&o, path, err));
    cli_out_close(&o, ASH_E_CANCELLED, err);
    return ASH_OK;
}

ash_status cli_out_write(const char *path, const char *s, size_t n, ash_error *err) {
    cli_out o;
    ASH_TRY(cli_out_open(&o, path, err));
    ash_status st = fwrite(s, 1, n, o.f) == n ? ASH_OK : cli_out_failed(&o, err);
    return cli_out_close(&o, st, err);
}

/* ---- --json ---- */
int cli_print_json(json_t *o) {
    int rc = o ? json_dumpf(o, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(10)) : -1;
    putchar('\n');
    json_decref(o);
    return rc == 0 ? 0 : cli_fail(NULL, ASH_E_NOMEM);
}

/* ---- files that ship with the program ---- */
const char *cli_data_file(const char *name) {
    static char path[2 * PATH_MAX];
    static const char *const places[] = {"/../../data/", "/../share/ashlar/", "/data/"};
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n > 0) {
        exe[n] = 0;
        char *slash = strrchr(exe, '/');
        if (slash) *slash = 0;
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            snprintf(path, sizeof path, "%s%s%s", exe, places[i], name);
            if (access(path, R_OK) == 0) return path;
        }
    }
#ifdef ASHLAR_DATADIR
    snprintf(path, sizeof path, "%s/%s", ASHLAR_DATADIR, name);
    if (access(path, R_OK) == 0) return path;
#endif
    return NULL;
}

/* ---- input ---- */
ash_status cli_read_file(const char *path, size_t limit, char **out, size_t *n, ash_error *err) {
    bool in = strcmp(path, "-") == 0;
    FILE *f = in ? stdin : fopen(path, "rbe");
    char *p = NULL;
    size_t len = 0, cap = 0, k;
    ash_status st = f ? ASH_OK : ash_fail(err, ASH_E_IO, "cannot open %s: %s", path, strerror(errno));
    while (st == ASH_OK) {
        if (len + 1 >= cap) {
            char *q = realloc(p, cap = cap ? cap * 2 : 65536);
            if (!q) {
                st = ash_fail(err, ASH_E_NOMEM, "out of memory for %s", path);
                break;
            }
            p = q;
        }
        k = fread(p + len, 1, cap - 1 - len, f);
        len += k;
        if (len > limit) st = ash_fail(err, ASH_E_LIMIT, "%s is longer than %zu bytes", path, limit);
        else if (ferror(f)) st = ash_fail(err, ASH_E_IO, "cannot read %s: %s", path, strerror(errno));
        else if (k == 0) break;
    }
    if (f && !in) fclose(f);
    if (st != ASH_OK) return free(p), st;
    p[len] = 0;
    *out = p;
    *n = len;
    return ASH_OK;
}

char *cli_vars_json(const opt_list *l, const char **bad) {
    json_t *o = json_object();
    *bad = NULL;
    for (int i = 0; o && i < l->n; i++) {
        const char *eq = strchr(l->v[i], '=');
        if (!eq || eq == l->v[i]) {
            *bad = l->v[i];
            return json_decref(o), NULL;
        }
        json_t *v = json_loads(eq + 1, JSON_DECODE_ANY, NULL);
        char *name = strndup(l->v[i], (size_t)(eq - l->v[i]));
        int rc = name ? json_object_set_new(o, name, v ? v : json_string(eq + 1)) : -1;
        free(name);
        if (rc) return json_decref(o), NULL;
    }
    char *s = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return s;
}
