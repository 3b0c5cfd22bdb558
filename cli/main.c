/* main.c - the verb table, dispatch, `ashlar help`, and the last check of standard output. A verb listed
 * in commands.inc whose file is not part of this build has a null weak symbol and is left out. */
#include "opt.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define ASH_CMD(x) extern const ash_cmd cmd_##x __attribute__((weak));
#include "commands.inc"
#undef ASH_CMD

const char *g_verb = "";

const ash_cmd *const *cli_commands(int *n) {
    static const ash_cmd *list[64];
    static int count = -1;
    if (count < 0) {
        count = 0;
#define ASH_CMD(x) \
    if (&cmd_##x) list[count++] = &cmd_##x;
#include "commands.inc"
#undef ASH_CMD
    }
    *n = count;
    return list;
}

const ash_cmd *cli_find_command(const char *name) {
    int n;
    const ash_cmd *const *c = cli_commands(&n);
    for (int i = 0; i < n; i++)
        if (strcmp(c[i]->name, name) == 0) return c[i];
    return NULL;
}

static int unknown_verb(const char *name) {
    const char *names[65];
    int n;
    const ash_cmd *const *c = cli_commands(&n);
    for (int i = 0; i < n; i++) names[i] = c[i]->name;
    names[n] = "help";
    if (strcmp(name, "pull") == 0) return cli_usage("`pull` is not built into this program (built with ASHLAR_NET=OFF, or without libcurl)");
    const char *near = cli_closest(name, names, n + 1);
    if (near) return cli_usage("there is no command \"%.60s\"; did you mean \"%s\"?", name, near);
    return cli_usage("there is no command \"%.60s\"", name);
}

static int help_verb(int argc, char **argv) {
    if (argc == 0) return help_main(stdout), 0;
    if (strcmp(argv[0], "--man") == 0 && argc == 2) return help_man(argv[1]);
    if (strcmp(argv[0], "--completion") == 0 && argc == 2) return help_completion(argv[1]);
    if (strcmp(argv[0], "--list") == 0 && argc == 1) {
        int n;
        const ash_cmd *const *c = cli_commands(&n);
        for (int i = 0; i < n; i++) puts(c[i]->name);
        return 0;
    }
    if (strcmp(argv[0], "--help") == 0 && argc == 1) return help_main(stdout), 0;
    if (argc > 1 || argv[0][0] == '-')
        return cli_usage("help takes one command's name, --man VERB|all, --completion bash|zsh|fish, or --list");
    const ash_cmd *c = cli_find_command(argv[0]);
    if (!c) return unknown_verb(argv[0]);
    help_command(c, stdout);
    return 0;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) {
        help_main(stderr);
        return 2;
    }
    const char *v = argv[1];
    if (strcmp(v, "--version") == 0 || strcmp(v, "-V") == 0) return printf("ashlar %s\n", ash_version()), 0;
    if (strcmp(v, "--help") == 0 || strcmp(v, "-h") == 0) return help_main(stdout), 0;
    if (strcmp(v, "help") == 0) return help_verb(argc - 2, argv + 2);
    if (v[0] == '-') return cli_usage("a command comes first, then its options; there is no option %.60s before it", v);
    const ash_cmd *c = cli_find_command(v);
    if (!c) return unknown_verb(v);
    g_verb = c->name;
    int n_pos = 0;
    bool help = false;
    int rc = opt_parse(c, argc - 2, argv + 2, &n_pos, &help);
    if (help) return help_command(c, stdout), 0;
    if (rc) return rc;
    if (n_pos < c->min_args) return cli_usage("too few arguments; usage: ashlar %s %s", c->name, c->usage);
    if (c->max_args >= 0 && n_pos > c->max_args) return cli_usage("unexpected argument \"%.80s\"", argv[2 + c->max_args]);
    char path[4096]; /* a model may be given by its name in the cache */
    if (n_pos > 0 && (strncmp(c->usage, "MODEL", 5) == 0 || strncmp(c->usage, "IN.gguf", 7) == 0) && cli_cached_model(argv[2], path, sizeof path)) argv[2] = path;
    return c->run(n_pos, argv + 2);
}

int main(int argc, char **argv) {
#ifdef _WIN32
    ash_win_main(&argc, &argv);
#endif
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit is then a failed write with a sentence, not a kill */
    int rc = dispatch(argc, argv);
    cli_progress_done();
    errno = 0;
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) != 0) failed = true;
    if (failed && rc == 0) { /* a full disk behind `> file` must not look like success */
        int e = errno ? errno : EIO;
        ash_error err = {0};
        ash_status s = e == ENOSPC || e == EDQUOT || e == EFBIG ? ASH_E_LIMIT : ASH_E_IO;
        ash_fail(&err, s, "cannot write to standard output: %s", strerror(e));
        rc = cli_fail(&err, s);
    }
    return rc;
}
