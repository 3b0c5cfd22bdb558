/* cli.h - what every command file shares. One cmd_<verb>.c per verb, on public headers only.
 *
 * A command defines `const ash_cmd cmd_<verb>` with an option table; parsing, --help, the man page and
 * shell completion all come from it. Common options (--help, --json where `json` is set, -t where
 * `threads` is set) are added by opt.c. */
#ifndef ASH_CLI_H
#define ASH_CLI_H

#include "ashlar/base.h"

#include <stdio.h>

typedef enum {
    OPT_END = 0,
    OPT_FLAG,   /* bool *     */
    OPT_STR,    /* const char ** */
    OPT_I64,    /* int64_t *  */
    OPT_F64,    /* double *   */
    OPT_BYTES,  /* int64_t *  "60MB", "1.5GiB", "1000": kB/MB/GB decimal, KiB/MiB/GiB binary */
    OPT_LIST    /* opt_list * repeated, or several values: --calib A --calib B */
} opt_kind;

typedef struct { const char *v[64]; int n; } opt_list;

typedef struct {
    opt_kind kind;
    char short_name;        /* 0: none */
    const char *name;       /* "size" for --size; --no-<name> turns a flag off */
    const char *arg;        /* "BYTES"; NULL for flags */
    const char *help;       /* one sentence */
    void *dst;              /* static storage of the command, holding the default */
} opt_def;

typedef struct {
    const char *name;       /* verb */
    const char *usage;      /* "MODEL --size BYTES -o OUT"; where it begins with MODEL, names of pulled models are taken, too */
    const char *summary;    /* one line */
    const char *details;    /* paragraphs for --help and the man page; may be NULL */
    const opt_def *opts;    /* ends with OPT_END; may be NULL */
    int min_args, max_args; /* positionals; max -1: any */
    bool json, threads;     /* wants --json, -t */
    int (*run)(int argc, char **argv); /* positionals only; returns the exit code */
} ash_cmd;

/* Set by the common options before run. */
extern bool g_json;         /* --json: one JSON document on stdout, nothing else there */
extern int g_threads;       /* -t N, 0: all usable */

/* Print "ashlar VERB: <sentence>" on stderr and return the status' exit code. */
int cli_fail(const ash_error *err, ash_status s);
int cli_usage(const char *fmt, ...) ASH_PRINTF(1, 2); /* sentence + hint, returns 2 */

/* Progress on a terminal (stderr), silent in a pipe. */
ash_progress cli_progress(void);
void cli_progress_done(void);          /* clears the bar */
bool cli_is_tty(FILE *f);
/* "85.0 MB"-style text; buf >= 32 bytes. */
const char *cli_bytes(uint64_t n, char *buf);
/* Parse "60MB", "1.5GiB". */
bool cli_parse_bytes(const char *s, int64_t *out);
/* Find a file that ships with the program (default texts): beside the build, or in the install's share folder. NULL if absent. Static storage. */
const char *cli_data_file(const char *name);
/* The folder of pulled models: $ASHLAR_CACHE, $XDG_CACHE_HOME/ashlar or ~/.cache/ashlar. NULL when none of them is set. Static storage. */
const char *cli_cache_dir(void);
/* A plain name that is no file here but is a model in the cache. */
bool cli_cached_model(const char *name, char *path, size_t size);
/* An output file written beside and renamed, for commands that write with stdio. An existing device or
 * pipe is written directly. Close gets the status so far: ASH_OK renames into
 * place, anything else removes; it returns that status, or the failure of closing. A full disk is ASH_E_LIMIT. */
typedef struct { FILE *f; char *tmp; const char *path; } cli_out;
ash_status cli_out_open(cli_out *o, const char *path, ash_error *err);
ash_status cli_out_failed(const cli_out *o, ash_error *err);   /* after a short fwrite, from errno */
ash_status cli_out_close(cli_out *o, ash_status st, ash_error *err);
/* Whether `path` can be written at all: long jobs ask before they start. Leaves nothing behind. */
ash_status cli_out_check(const char *path, ash_error *err);
ash_status cli_out_write(const char *path, const char *s, size_t n, ash_error *err); /* a whole file at once */
/* The one JSON document of --json on stdout; takes `o`. NULL (out of memory, or a name that is no UTF-8) fails. Returns the exit code. */
struct json_t;
int cli_print_json(struct json_t *o);
/* A whole file ("-": standard input) of at most `limit` bytes, NUL-terminated; free() it. */
ash_status cli_read_file(const char *path, size_t limit, char **out, size_t *n, ash_error *err);
/* "name=value" options as the text of a JSON object; a value that is not JSON is a string. NULL: out of memory, or an
 * entry without "=" (then *bad is it). free() it. */
char *cli_vars_json(const opt_list *l, const char **bad);
/* SIGINT sets this once installed by cli_catch_sigint; long jobs end at the next checkpoint. */
extern volatile int g_interrupted;
void cli_catch_sigint(void);

#endif
