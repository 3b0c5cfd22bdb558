/* help.c - help texts, man pages and shell completion, all from the option tables. */
#include "opt.h"

#include <string.h>

enum { WIDTH = 79, COL = 26 };

/* Print text wrapped at WIDTH; the cursor is at column `at`, later lines start at `indent`. Newlines in
 * the text are kept. */
static void wrapped(FILE *f, const char *s, int at, int indent) {
    int spaces = 0; /* held back, so that no line ends in one */
    while (*s) {
        if (*s == ' ') {
            spaces++;
            s++;
            continue;
        }
        if (*s == '\n') {
            fputc('\n', f);
            spaces = 0;
            at = 0;
            s++;
            continue;
        }
        int n = (int)strcspn(s, " \n");
        if (at > indent && at + spaces + n > WIDTH) {
            fputc('\n', f);
            at = spaces = 0;
        }
        if (at < indent) {
            fprintf(f, "%*s", indent - at, "");
            at = indent;
        }
        fprintf(f, "%*s%.*s", spaces, "", n, s);
        at += spaces + n;
        spaces = 0;
        s += n;
    }
    fputc('\n', f);
}

void help_main(FILE *f) {
    int n;
    const ash_cmd *const *c = cli_commands(&n);
    fprintf(f, "ashlar: fit language models to small machines\n\nusage: ashlar COMMAND [ARGUMENTS]\n\ncommands:\n");
    for (int i = 0; i < n; i++) {
        fprintf(f, "  %-12s", c[i]->name);
        wrapped(f, c[i]->summary, 14, 14);
    }
    fprintf(f, "\n`ashlar COMMAND --help` explains one command, `ashlar --version` names the version.\n");
    fprintf(f, "Exit codes: 0 ok, 2 usage, 3 bad input or permission, 4 limit (memory, disk, budget,\ncontext), 5 internal.\n");
}

/* Before any parsing: --help is looked for first. */
static bool default_on(const opt_def *o) { return o->kind == OPT_FLAG && *(const bool *)o->dst; }

/* "  -t, --threads N"; a flag that is on by default is shown as --no-x. */
static int option_head(const opt_def *o, char *buf, size_t n) {
    char s[8] = "";
    if (o->short_name) snprintf(s, sizeof s, "-%c, ", o->short_name);
    return snprintf(buf, n, "%s--%s%s%s%s", s, default_on(o) ? "no-" : "", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

/* The option's sentence, with its default where the sentence does not speak of one. */
static const char *option_help(const opt_def *o, char *buf, size_t n) {
    const char *h = o->help ? o->help : "";
    char v[64] = "";
    if (o->kind == OPT_I64 && *(const int64_t *)o->dst) snprintf(v, sizeof v, "%lld", (long long)*(const int64_t *)o->dst);
    else if (o->kind == OPT_F64 && *(const double *)o->dst != 0) snprintf(v, sizeof v, "%g", *(const double *)o->dst);
    else if (o->kind == OPT_BYTES && *(const int64_t *)o->dst > 0) cli_bytes((uint64_t)*(const int64_t *)o->dst, v);
    else if (o->kind == OPT_STR && *(const char *const *)o->dst) snprintf(v, sizeof v, "%.60s", *(const char *const *)o->dst);
    if (!v[0] || strstr(h, "default")) return h;
    size_t k = strlen(h);
    bool dot = k && h[k - 1] == '.';
    snprintf(buf, n, "%.*s (default: %s)%s", (int)(k - dot), h, v, dot ? "." : "");
    return buf;
}

void help_command(const ash_cmd *c, FILE *f) {
    fprintf(f, "ashlar %s: ", c->name);
    wrapped(f, c->summary, 9 + (int)strlen(c->name), 4);
    fprintf(f, "\nusage: ashlar %s ", c->name);
    wrapped(f, c->usage, 15 + (int)strlen(c->name), 11);
    if (c->details) {
        fputc('\n', f);
        wrapped(f, c->details, 0, 0);
    }
    fprintf(f, "\noptions:\n");
    opt_def o;
    for (int i = 0; opt_at(c, i, &o); i++) {
        char head[96], text[600];
        int k = option_head(&o, head, sizeof head);
        fprintf(f, "  %s", head);
        if (k + 3 >= COL)
            fprintf(f, "\n%*s", COL, "");
        else
            fprintf(f, "%*s", COL - 2 - k, "");
        wrapped(f, option_help(&o, text, sizeof text), COL, COL);
    }
}

/* ---- man pages ---- */
static void troff(const char *s) {
    bool start = true;
    for (; *s; s++) {
        if (start && (*s == '.' || *s == '\'')) fputs("\\&", stdout);
        if (*s == '\\')
            fputs("\\e", stdout);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if (*s == '\n' && s[1] == '\n') { /* a blank line starts a paragraph */
            fputs("\n.PP\n", stdout);
            while (s[1] == '\n') s++;
            start = true;
            continue;
        } else if (*s == '\n' && s[1] == ' ')
            fputs("\n.br\n", stdout);
        else
            fputc(*s, stdout);
        start = *s == '\n';
    }
}

static void man_options(const ash_cmd *c) {
    opt_def o;
    for (int i = 0; opt_at(c, i, &o); i++) {
        char head[96], text[600];
        option_head(&o, head, sizeof head);
        printf(".TP\n.B ");
        troff(head);
        putchar('\n');
        troff(option_help(&o, text, sizeof text));
        putchar('\n');
    }
}

static void man_exit(void) {
    printf(".SH EXIT STATUS\n0 ok, 2 usage, 3 bad input or permission, 4 limit (memory, disk, budget, context), 5 internal.\n");
}

int help_man(const char *which) {
    int n;
    const ash_cmd *const *c = cli_commands(&n);
    if (strcmp(which, "all") == 0) {
        printf(".TH ASHLAR 1 \"\" \"ashlar %s\"\n.SH NAME\nashlar \\- fit language models to small machines\n", ash_version());
        printf(".SH SYNOPSIS\n.B ashlar\nCOMMAND [ARGUMENTS]\n.SH COMMANDS\n");
        for (int i = 0; i < n; i++) {
            printf(".TP\n.B ashlar\\-%s (1)\n", c[i]->name);
            troff(c[i]->summary);
            putchar('\n');
        }
        for (int i = 0; i < n; i++) {
            printf(".SH ASHLAR %s\n.B ashlar %s\n", c[i]->name, c[i]->name);
            troff(c[i]->usage);
            putchar('\n');
            man_options(c[i]);
        }
        printf(".SH ENVIRONMENT\n.TP\n.B ASHLAR_CPU\nscalar, avx2 or avx512; on 64-bit ARM scalar, neon, dotprod or i8mm: use no more than this level of instructions.\n");
        man_exit();
        return 0;
    }
    const ash_cmd *v = cli_find_command(which);
    if (!v) return cli_usage("--man wants a command's name or \"all\", not \"%.60s\"", which);
    char upper[32];
    size_t k = 0;
    for (; v->name[k] && k < sizeof upper - 1; k++)
        upper[k] = v->name[k] >= 'a' && v->name[k] <= 'z' ? (char)(v->name[k] - 32) : v->name[k];
    upper[k] = 0;
    printf(".TH ASHLAR\\-%s 1 \"\" \"ashlar %s\"\n.SH NAME\nashlar\\-%s \\- ", upper, ash_version(), v->name);
    troff(v->summary);
    printf("\n.SH SYNOPSIS\n.B ashlar %s\n", v->name);
    troff(v->usage);
    if (v->details) {
        printf("\n.SH DESCRIPTION\n");
        troff(v->details);
    }
    printf("\n.SH OPTIONS\n");
    man_options(v);
    man_exit();
    printf(".SH SEE ALSO\n.BR ashlar (1)\n");
    return 0;
}

/* ---- completion ---- */
static void bash_completion(const ash_cmd *const *c, int n) {
    printf("# bash completion for ashlar\n_ashlar() {\n    local cur=${COMP_WORDS[COMP_CWORD]} opts=\n    COMPREPLY=()\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        COMPREPLY=($(compgen -W \"");
    for (int i = 0; i < n; i++) printf("%s ", c[i]->name);
    printf("help --version --help\" -- \"$cur\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n    help) opts=\"");
    for (int i = 0; i < n; i++) printf("%s ", c[i]->name);
    printf("\"; COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\")); return ;;\n");
    for (int i = 0; i < n; i++) {
        opt_def o;
        printf("    %s) opts=\"", c[i]->name);
        for (int j = 0; opt_at(c[i], j, &o); j++) printf("%s--%s%s", j ? " " : "", default_on(&o) ? "no-" : "", o.name);
        printf("\" ;;\n");
    }
    printf("    esac\n    case $cur in\n    -*) COMPREPLY=($(compgen -W \"$opts\" -- \"$cur\")) ;;\n"
           "    *) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n    esac\n}\ncomplete -o filenames -F _ashlar ashlar\n");
}

/* A help text inside single quotes of a shell; for zsh's _arguments also without its separators. */
static void quoted(const char *s, bool zsh) {
    for (; *s; s++) {
        if (*s == '\'')
            fputs("'\\''", stdout);
        else if (zsh && strchr("[]:\\", *s))
            printf("\\%c", *s);
        else if (*s == '\n')
            putchar(' ');
        else
            putchar(*s);
    }
}

static void zsh_completion(const ash_cmd *const *c, int n) {
    printf("#compdef ashlar\n_ashlar() {\n  local -a verbs\n  if (( CURRENT == 2 )); then\n    verbs=(\n");
    for (int i = 0; i < n; i++) {
        printf("      '%s:", c[i]->name);
        quoted(c[i]->summary, true);
        printf("'\n");
    }
    printf("      'help:Show help.'\n    )\n    _describe command verbs\n    return\n  fi\n  local verb=$words[2]\n  shift words\n  (( "
           "CURRENT-- ))\n"
           "  case $verb in\n");
    for (int i = 0; i < n; i++) {
        opt_def o;
        printf("    %s) _arguments", c[i]->name);
        for (int j = 0; opt_at(c[i], j, &o); j++) {
            printf(" \\\n      '%s--%s%s[", o.kind == OPT_LIST ? "*" : "", default_on(&o) ? "no-" : "", o.name);
            quoted(o.help ? o.help : "", true);
            printf("]");
            if (o.arg) {
                printf(":");
                quoted(o.arg, true);
                printf(":%s", o.kind == OPT_STR || o.kind == OPT_LIST ? "_files" : " ");
            }
            printf("'");
        }
        printf(" \\\n      '*:file:_files' ;;\n");
    }
    printf("    help) _arguments '1:command:(");
    for (int i = 0; i < n; i++) printf("%s ", c[i]->name);
    printf(")' ;;\n  esac\n}\n_ashlar \"$@\"\n");
}

static void fish_completion(const ash_cmd *const *c, int n) {
    printf("# fish completion for ashlar\n");
    for (int i = 0; i < n; i++) {
        printf("complete -c ashlar -n __fish_use_subcommand -f -a %s -d '", c[i]->name);
        quoted(c[i]->summary, false);
        printf("'\n");
        opt_def o;
        for (int j = 0; opt_at(c[i], j, &o); j++) {
            printf("complete -c ashlar -n '__fish_seen_subcommand_from %s' -l %s%s", c[i]->name, default_on(&o) ? "no-" : "", o.name);
            if (o.short_name && !default_on(&o)) printf(" -s %c", o.short_name);
            if (o.kind != OPT_FLAG) printf(" -r");
            printf(" -d '");
            quoted(o.help ? o.help : "", false);
            printf("'\n");
        }
    }
    printf("complete -c ashlar -n __fish_use_subcommand -f -a help -d 'Show help.'\n");
}

int help_completion(const char *shell) {
    int n;
    const ash_cmd *const *c = cli_commands(&n);
    if (strcmp(shell, "bash") == 0)
        bash_completion(c, n);
    else if (strcmp(shell, "zsh") == 0)
        zsh_completion(c, n);
    else if (strcmp(shell, "fish") == 0)
        fish_completion(c, n);
    else
        return cli_usage("--completion wants bash, zsh or fish, not \"%.60s\"", shell);
    return 0;
}
