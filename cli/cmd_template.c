/* cmd_template.c - `ashlar template`: what a chat template makes of a conversation, before any token is computed. */
#include "cli.h"

#include "ashlar/text.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *messages_arg = "-", *tools_arg, *documents_arg, *bos_arg, *eos_arg, *date_arg;
static bool gen = true;
static opt_list var_args;

static const opt_def options[] = {
    {OPT_STR, 'm', "messages", "FILE", "JSON array of messages (default: standard input).", &messages_arg},
    {OPT_STR, 0, "tools", "FILE", "JSON array of tools.", &tools_arg},
    {OPT_STR, 0, "documents", "FILE", "JSON array of documents.", &documents_arg},
    {OPT_LIST, 0, "var", "NAME=VALUE", "A further variable, e.g. enable_thinking=false; may be repeated.", &var_args},
    {OPT_FLAG, 0, "generation", NULL, "End with the beginning of the answer; --no-generation does not.", &gen},
    {OPT_STR, 0, "date", "DATE", "What the template takes for now: 2026-02-03 or \"2026-02-03 04:05:06\" (default: the clock).", &date_arg},
    {OPT_STR, 0, "bos", "TEXT", "Text of the BOS token (default: the file's).", &bos_arg},
    {OPT_STR, 0, "eos", "TEXT", "Text of the EOS token (default: the file's).", &eos_arg},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

enum { MAX_JSON = 64 << 20, MAX_TEMPLATE = 1 << 20 };

static bool parse_date(struct tm *t) {
    int used = 0;
    *t = (struct tm){.tm_isdst = -1};
    if (!date_arg) {
        time_t c = time(NULL);
        return localtime_r(&c, t) != NULL;
    }
    if (sscanf(date_arg, "%4d-%2d-%2d%n %2d:%2d:%2d%n", &t->tm_year, &t->tm_mon, &t->tm_mday, &used, &t->tm_hour, &t->tm_min, &t->tm_sec,
               &used) < 3)
        return false;
    if (date_arg[used] || t->tm_mon < 1 || t->tm_mon > 12) return false;
    t->tm_year -= 1900;
    t->tm_mon--;
    return timegm(t) != (time_t)-1; /* fills in the day of the week */
}

typedef struct {
    ash_gguf *g;
    ash_vocab *v;
    ash_tmpl *t;
    char *src, *messages, *tools, *documents, *vars, *bos, *eos, *out, *stray;
} job;

static char *token_text(const ash_vocab *v, ash_token t) {
    ash_str s = t < 0 ? (ash_str){"", 0} : ash_vocab_token_text(v, t);
    return strndup(s.p ? s.p : "", s.n);
}

/* MODEL, or the template alone. */
static ash_status load(job *j, const char *path, ash_error *err) {
    size_t n = strlen(path);
    if (n > 6 && strcmp(path + n - 6, ".jinja") == 0) {
        ASH_TRY(cli_read_file(path, MAX_TEMPLATE, &j->src, &n, err));
        return ash_tmpl_parse(&j->t, j->src, n, err);
    }
    ash_str src;
    ASH_TRY(ash_gguf_open(&j->g, path, err));
    if (!ash_gguf_get_str(j->g, "tokenizer.chat_template", &src)) return ash_fail(err, ASH_E_FORMAT, "%s has no chat template", path);
    ASH_TRY(ash_tmpl_parse(&j->t, src.p, src.n, err));
    ASH_TRY(ash_vocab_load(&j->v, j->g, err));
    j->bos = token_text(j->v, ash_vocab_bos(j->v));
    j->eos = token_text(j->v, ash_vocab_eos(j->v));
    return j->bos && j->eos ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory");
}

static ash_status render(job *j, const char *path, const struct tm *now, size_t *n, ash_error *err) {
    size_t k;
    ASH_TRY(load(j, path, err));
    ASH_TRY(cli_read_file(messages_arg, MAX_JSON, &j->messages, &k, err));
    if (tools_arg) ASH_TRY(cli_read_file(tools_arg, MAX_JSON, &j->tools, &k, err));
    if (documents_arg) ASH_TRY(cli_read_file(documents_arg, MAX_JSON, &j->documents, &k, err));
    ash_tmpl_input in = {j->messages, j->tools, j->documents, j->vars, gen, bos_arg ? bos_arg : j->bos, eos_arg ? eos_arg : j->eos, now};
    ASH_TRY(ash_tmpl_render_json(j->t, &in, &j->out, n, err));
    return j->v ? ash_tmpl_stray_tokens(j->t, j->v, in.bos, in.eos, &j->stray, err) : ASH_OK;
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    job j = {0};
    struct tm now;
    size_t n = 0;
    const char *bad;
    if (!parse_date(&now)) return cli_usage("--date takes 2026-02-03 or \"2026-02-03 04:05:06\"");
    if (var_args.n && !(j.vars = cli_vars_json(&var_args, &bad))) return cli_usage("--var takes NAME=VALUE");
    ash_status st = render(&j, argv[0], &now, &n, &err);
    int rc = 0;
    if (st != ASH_OK)
        rc = cli_fail(&err, st);
    else if (g_json) {
        json_t *o = json_pack("{s:s%, s:[]}", "text", j.out, n, "stray_tokens");
        for (char *p = j.stray, *q; o && p && (q = strchr(p, '\n')); p = q + 1)
            json_array_append_new(json_object_get(o, "stray_tokens"), json_stringn(p, (size_t)(q - p)));
        rc = cli_print_json(o);
    } else {
        fwrite(j.out, 1, n, stdout);
        for (char *p = j.stray, *q; p && (q = strchr(p, '\n')); p = q + 1)
            fprintf(stderr, "ashlar template: warning: %.*s is no special token of this vocabulary\n", (int)(q - p), p);
    }
    ash_text_free(j.out);
    ash_text_free(j.stray);
    ash_tmpl_free(j.t);
    ash_vocab_free(j.v);
    ash_gguf_close(j.g);
    char *own[] = {j.src, j.messages, j.tools, j.documents, j.vars, j.bos, j.eos};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) free(own[i]);
    return rc;
}

const ash_cmd cmd_template = {
    .name = "template",
    .usage = "MODEL|FILE.jinja [--messages F.json] [--tools F.json]",
    .summary = "Render a conversation through a chat template.",
    .details = "Prints the text that the model would be given, nothing else. Messages, tools and documents are JSON as the chat APIs have "
               "them. Turn markers that the vocabulary does not hold as special tokens are named on standard error.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .run = run};
