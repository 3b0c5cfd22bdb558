/* cmd_run.c - `ashlar run`: one answer, or a chat. The whole conversation is rendered through the file's chat template at
 * every turn and handed to the session, which computes only what is new. */
#include "cli.h"

#include "constrain.h"
#include "line.h"
#include "model_args.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *grammar_arg, *schema_arg;
static bool strict_schema;
static const char *session_path, *system_arg;
static bool raw, ignore_eos, stats = true;
static cli_weights weights;
static int64_t n_predict = -1, ctx, batch, seed = -1, top_k = -1, last_n = -2;
static double temp = -1, top_p = -1, min_p = -1, repeat = -1, presence, frequency;
static opt_list bias_args, var_args, lora_args;

static const opt_def options[] = {
    {OPT_STR, 0, "system", "TEXT", "System message of the chat.", &system_arg},
    {OPT_FLAG, 0, "raw", NULL, "Continue the text as it is, without the chat template.", &raw},
    {OPT_I64, 'n', "predict", "N", "Stop after N tokens (default: at the end of the answer or of the context).", &n_predict},
    {OPT_I64, 'c', "ctx", "N", "Tokens of context (default: the model's, at most 4096).", &ctx},
    CLI_CACHE_OPTIONS,
    {OPT_STR, 0, "session", "FILE", "Go on with what FILE holds of the cache, where it exists, and write it at the end.", &session_path},
    {OPT_I64, 's', "seed", "N", "Seed of the draw (default: the clock).", &seed},
    {OPT_F64, 0, "temp", "T", "Temperature; 0 takes the likeliest token (default 0.8, or the file's).", &temp},
    {OPT_I64, 0, "top-k", "K", "Draw among the K likeliest; 0: all (default 40, or the file's).", &top_k},
    {OPT_F64, 0, "top-p", "P", "Draw among the likeliest that reach probability P (default 0.95, or the file's).", &top_p},
    {OPT_F64, 0, "min-p", "P", "Drop tokens below P times the likeliest (default 0.05, or the file's).", &min_p},
    {OPT_F64, 0, "repeat-penalty", "X", "Divide the logits of recent tokens by X (default 1: off).", &repeat},
    {OPT_F64, 0, "presence-penalty", "X", "Subtract X from the logits of recent tokens.", &presence},
    {OPT_F64, 0, "frequency-penalty", "X", "Subtract X for every recent occurrence.", &frequency},
    {OPT_I64, 0, "penalty-last-n", "N", "Tokens the penalties look back; -1: all (default 64).", &last_n},
    {OPT_LIST, 0, "logit-bias", "ID=X", "Add X to the logit of token ID; may be repeated.", &bias_args},
    {OPT_LIST, 0, "template-var", "NAME=VALUE", "A variable of the chat template, e.g. enable_thinking=false; may be repeated.", &var_args},
    CLI_LORA_OPT(&lora_args),
    {OPT_STR, 0, "grammar", "FILE", "Keep the answer to the GBNF grammar in FILE.", &grammar_arg},
    {OPT_STR, 0, "json-schema", "FILE|JSON", "Keep the answer to a JSON schema.", &schema_arg},
    {OPT_FLAG, 0, "strict-schema", NULL, "Fail at a keyword of the schema that cannot be enforced, instead of leaving it out.", &strict_schema},
    {OPT_I64, 'b', "batch", "N", "Prompt tokens per forward pass (default: up to 512, as many as fit in little memory).", &batch},
    CLI_WEIGHTS_OPTS(&weights),
    {OPT_FLAG, 0, "ignore-eos", NULL, "Go on after the end of the answer.", &ignore_eos},
    {OPT_FLAG, 0, "stats", NULL, "The line of statistics on stderr; --no-stats leaves it out.", &stats},
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

enum { STEP = 512 /* prompt tokens between looks at Ctrl-C */, MAX_STDIN = 64 << 20 };

static volatile sig_atomic_t g_stop; /* Ctrl-C: ends the answer, or the wait at the prompt */
static void on_sigint(int sig) {
    (void)sig;
    g_stop = 1;
}

typedef struct {
    char *p;
    size_t n, cap;
} text;

static bool text_add(text *t, const char *p, size_t n) {
    if (t->n + n + 1 > t->cap) {
        size_t cap = (t->n + n + 1) * 2;
        char *q = realloc(t->p, cap);
        if (!q) return false;
        t->p = q, t->cap = cap;
    }
    memcpy(t->p + t->n, p, n);
    t->p[t->n += n] = 0;
    return true;
}

typedef struct {
    ash_model *m;
    const ash_vocab *v;
    ash_tmpl *tmpl;      /* NULL: the text is continued as it is */
    cli_loras loras;
    ash_session *s;
    ash_detok *d;
    ash_sampler_opts sampling;
    ash_grammar *grammar; /* NULL: anything goes */
    ash_matcher *matcher;
    ash_chat_msg *msgs;  /* contents are owned */
    size_t n_msgs, cap_msgs;
    text transcript;     /* without a template: everything so far */
    text answer;
    char *bos, *eos, *vars;
    uint64_t turn;
    bool more;           /* other turns may follow: windows are kept */
} chat;

typedef struct {
    size_t prompt, reused, generated;
    double prompt_s, gen_s;
    const char *stop; /* "end", "limit", "context", "interrupted" */
} outcome;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Offset of the first byte that is not well-formed UTF-8 (RFC 3629), or -1. */
static long bad_utf8(const char *s, size_t n) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        unsigned c = p[i], len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (!len || i + len > n) return (long)i;
        for (unsigned k = 1; k < len; k++)
            if ((p[i + k] & 0xc0) != 0x80) return (long)i;
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) || (c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))
            return (long)i;
        i += len;
    }
    return -1;
}

static ash_status check_utf8(const char *what, const char *s, size_t n, ash_error *err) {
    long at = bad_utf8(s, n);
    if (at < 0) return ASH_OK;
    return ash_fail_at(err, ASH_E_FORMAT, (uint64_t)at, "%s is not UTF-8: byte %ld is 0x%02x", what, at, (unsigned char)s[at]);
}

/* Control characters of the answer would reach the terminal; newline and tab may. */
static void show(const char *p, size_t n) {
    bool tty = cli_is_tty(stdout);
    for (size_t i = 0; i < n; i++)
        if (!tty || (unsigned char)p[i] >= 0x20 || p[i] == '\n' || p[i] == '\t') {
            if (!tty || p[i] != 0x7f) putchar(p[i]);
        }
    fflush(stdout);
}

/* ---- messages ---- */
static ash_status add_message(chat *c, const char *role, const char *content, ash_error *err) {
    if (c->n_msgs == c->cap_msgs) {
        size_t cap = c->cap_msgs ? c->cap_msgs * 2 : 16;
        ash_chat_msg *p = realloc(c->msgs, cap * sizeof *p);
        if (!p) return ash_fail(err, ASH_E_NOMEM, "out of memory for the conversation");
        c->msgs = p, c->cap_msgs = cap;
    }
    char *copy = strdup(content);
    if (!copy) return ash_fail(err, ASH_E_NOMEM, "out of memory for the conversation");
    c->msgs[c->n_msgs++] = (ash_chat_msg){role, copy};
    return ASH_OK;
}

static void drop_messages(chat *c, size_t keep) {
    while (c->n_msgs > keep) free((char *)(uintptr_t)c->msgs[--c->n_msgs].content);
}

static char *messages_json(const chat *c) {
    json_t *l = json_array();
    for (size_t i = 0; l && i < c->n_msgs; i++)
        if (json_array_append_new(l, json_pack("{s:s, s:s}", "role", c->msgs[i].role, "content", c->msgs[i].content))) {
            json_decref(l);
            return NULL;
        }
    char *s = l ? json_dumps(l, JSON_COMPACT) : NULL;
    json_decref(l);
    return s;
}

/* Token ids of everything so far, ready to be continued. */
static ash_status prompt_tokens(chat *c, ash_token **t, size_t *n, ash_error *err) {
    if (!c->tmpl)
        return ash_tokenize(c->v, c->transcript.p ? c->transcript.p : "", c->transcript.n, ASH_TOKENIZE_BOS | ASH_TOKENIZE_SPECIAL, t, n, err);
    char *out, *msgs = messages_json(c);
    size_t len;
    if (!msgs) return ash_fail(err, ASH_E_NOMEM, "out of memory for the conversation");
    time_t clock_now = time(NULL);
    struct tm day;
    ash_tmpl_input in = {.messages = msgs, .vars = c->vars, .add_generation_prompt = true, .bos = c->bos, .eos = c->eos, .now = localtime_r(&clock_now, &day)};
    ash_status rendered = ash_tmpl_render_json(c->tmpl, &in, &out, &len, err);
    free(msgs);
    ASH_TRY(rendered);
    /* a template that writes BOS itself must not get a second one */
    bool has_bos = *c->bos && strncmp(out, c->bos, strlen(c->bos)) == 0;
    ash_status st = ash_tokenize(c->v, out, len, ASH_TOKENIZE_SPECIAL | (has_bos ? 0 : ASH_TOKENIZE_BOS), t, n, err);
    ash_text_free(out);
    return st;
}

/* ---- one answer ---- */
static ash_status emit(chat *c, ash_str s, ash_error *err) {
    if (!s.n) return ASH_OK;
    if (!text_add(&c->answer, s.p, s.n)) return ash_fail(err, ASH_E_NOMEM, "out of memory for the answer");
    if (!g_json) show(s.p, s.n);
    return ASH_OK;
}

static ash_status generate(chat *c, ash_sampler *smp, outcome *o, ash_error *err) {
    ash_str piece;
    o->stop = "limit";
    while (n_predict < 0 || o->generated < (size_t)n_predict) {
        if (g_stop) {
            o->stop = "interrupted";
            break;
        }
        ash_token t = ash_sampler_pick(smp, ash_session_logits(c->s));
        if (t < 0) {
            ASH_TRY(ash_matcher_error(c->matcher, err));
            return ash_fail(err, ASH_E_FORMAT, "no token of this vocabulary fits the grammar here");
        }
        if ((!ignore_eos || c->matcher) && ash_vocab_is_eog(c->v, t)) {
            o->stop = "end";
            break;
        }
        ash_sampler_accept(smp, t);
        if (c->matcher) ASH_TRY(ash_matcher_accept(c->matcher, t, err));
        o->generated++;
        ASH_TRY(ash_detok_next(c->d, t, &piece, err));
        ASH_TRY(emit(c, piece, err));
        if (ash_session_n_tokens(c->s) >= ash_session_n_ctx(c->s)) {
            o->stop = "context";
            break;
        }
        ASH_TRY(ash_session_append(c->s, t, err));
    }
    return emit(c, ash_detok_flush(c->d), err);
}

static ash_status answer(chat *c, outcome *o, ash_error *err) {
    *o = (outcome){.stop = "interrupted"};
    ash_token *t = NULL;
    ash_sampler *smp = NULL;
    ash_status st;
    c->answer.n = 0;
    if (c->answer.p) c->answer.p[0] = 0;
    g_stop = 0;
    ASH_TRY_GOTO(prompt_tokens(c, &t, &o->prompt, err), done);
    if (!o->prompt) {
        st = ash_fail(err, ASH_E_FORMAT, "the prompt is empty");
        goto done;
    }
    if (o->prompt > ash_session_n_ctx(c->s)) {
        st = ash_fail(err, ASH_E_LIMIT, "the prompt is %zu tokens long and the context %u (see --ctx)", o->prompt, ash_session_n_ctx(c->s));
        goto done;
    }
    double t0 = now();
    /* what the old timeline serves is known after the first sync of the whole; so go in steps only beyond it */
    size_t same = 0, old = ash_session_n_tokens(c->s);
    while (same < old && same < o->prompt && ash_session_tokens(c->s)[same] == t[same]) same++;
    bool first = true;
    for (size_t n = same; n < o->prompt && !g_stop; first = false) {
        n = n + STEP < o->prompt ? n + STEP : o->prompt;
        ASH_TRY_GOTO(ash_session_sync(c->s, t, n, first ? &o->reused : NULL, err), done);
    }
    if (first) ASH_TRY_GOTO(ash_session_sync(c->s, t, o->prompt, &o->reused, err), done);
    double t1 = now();
    o->prompt_s = t1 - t0;
    if (g_stop) goto done;
    if (c->more) ASH_TRY_GOTO(ash_session_mark(c->s, err), done);
    ash_sampler_opts so = c->sampling;
    so.seed += c->turn++;
    ASH_TRY_GOTO(ash_sampler_new(&smp, &so, ash_model_n_vocab(c->m), err), done);
    if (c->matcher) ash_matcher_reset(c->matcher);
    ash_sampler_constrain(smp, c->matcher);
    for (size_t i = 0; i < o->prompt; i++) ash_sampler_accept(smp, t[i]);
    ash_detok_reset(c->d);
    st = generate(c, smp, o, err);
    o->gen_s = now() - t1;
    if (st == ASH_OK && c->more) st = ash_session_mark(c->s, err);
done:
    ash_sampler_free(smp);
    ash_tokens_free(t);
    return st;
}

static double rate(size_t n, double s) { return s > 0 ? (double)n / s : 0; }

static void print_stats(const outcome *o) {
    if (!stats || g_json) return;
    fprintf(stderr, "[prompt %zu tokens, %zu reused, %.1f tokens/s; answer %zu tokens, %.1f tokens/s%s%s]\n", o->prompt, o->reused,
            rate(o->prompt - o->reused, o->prompt_s), o->generated, rate(o->generated, o->gen_s), strcmp(o->stop, "end") ? "; stopped: " : "",
            strcmp(o->stop, "end") ? o->stop : "");
}

/* ---- once ---- */
static ash_status read_stdin(text *t, ash_error *err) {
    char buf[65536];
    size_t n;
    while ((n = fread(buf, 1, sizeof buf, stdin)) > 0) {
        if (t->n + n > MAX_STDIN) return ash_fail(err, ASH_E_LIMIT, "the prompt on standard input is longer than %d bytes", MAX_STDIN);
        if (!text_add(t, buf, n)) return ash_fail(err, ASH_E_NOMEM, "out of memory for the prompt");
    }
    return ferror(stdin) ? ash_fail(err, ASH_E_IO, "cannot read standard input") : ASH_OK;
}

static ash_status say(chat *c, const char *prompt, size_t n, ash_error *err) {
    if (c->tmpl) return add_message(c, "user", prompt, err);
    return text_add(&c->transcript, prompt, n) ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for the prompt");
}

static ash_status one_shot(chat *c, const char *prompt, ash_error *err) {
    text in = {0};
    if (strcmp(prompt, "-") == 0) {
        ASH_TRY(read_stdin(&in, err));
        prompt = in.p ? in.p : "";
    }
    size_t n = in.p ? in.n : strlen(prompt);
    outcome o = {0};
    ash_status st = check_utf8("the prompt", prompt, n, err);
    if (st == ASH_OK && strlen(prompt) != n) st = ash_fail(err, ASH_E_FORMAT, "the prompt holds a zero byte");
    if (st == ASH_OK) st = say(c, prompt, n, err);
    if (st == ASH_OK) st = answer(c, &o, err);
    free(in.p);
    if (st != ASH_OK) return st;
    if (g_json) {
        json_t *j = json_pack("{s:s%, s:s, s:I, s:I, s:I, s:f, s:f, s:I}", "text", c->answer.p ? c->answer.p : "", c->answer.n, "stop", o.stop,
                              "prompt_tokens", (json_int_t)o.prompt, "reused_tokens", (json_int_t)o.reused, "tokens", (json_int_t)o.generated,
                              "prompt_tps", rate(o.prompt - o.reused, o.prompt_s), "tps", rate(o.generated, o.gen_s), "seed",
                              (json_int_t)c->sampling.seed);
        if (!j) return ash_fail(err, ASH_E_NOMEM, "out of memory for the report");
        cli_print_json(j);
    } else {
        putchar('\n');
        fflush(stdout);
        print_stats(&o);
    }
    return ASH_OK;
}

/* ---- chat ---- */
static const char *const k_help = "/again  another answer to the last message\n"
                                  "/new    forget the conversation\n"
                                  "/help   this list\n"
                                  "/bye    leave (so do Ctrl-D and a second Ctrl-C)\n";

/* Answer what is pending; on failure the last message is taken back, so that the conversation can go on. */
static void turn(chat *c, size_t keep_msgs, size_t keep_text) {
    ash_error err = {0};
    outcome o;
    ash_status st = answer(c, &o, &err);
    if (st == ASH_OK && c->tmpl) st = add_message(c, "assistant", c->answer.p ? c->answer.p : "", &err);
    if (st == ASH_OK && !c->tmpl && c->answer.n && !text_add(&c->transcript, c->answer.p, c->answer.n)) st = ASH_E_NOMEM;
    putchar('\n');
    fflush(stdout);
    if (st == ASH_OK) {
        print_stats(&o);
        return;
    }
    cli_fail(&err, st);
    if (c->tmpl) drop_messages(c, keep_msgs);
    else if (c->transcript.p) c->transcript.p[c->transcript.n = keep_text] = 0;
}

static ash_status conversation(chat *c, ash_error *err) {
    const size_t first = c->n_msgs; /* the system message stays */
    size_t said_text = 0;
    bool asked = false, tty = cli_is_tty(stdin);
    if (tty) fprintf(stderr, "%s. /help lists the commands, Ctrl-C stops an answer.\n", c->tmpl ? "Chat" : "No chat template: what you type is continued");
    for (;;) {
        char *line;
        g_stop = 0;
        line_result r = line_read("> ", &line);
        if (r == LINE_END) break;
        if (r == LINE_INTERRUPTED) {
            if (asked) break;
            fputs("(Ctrl-C again or /bye to leave)\n", stderr);
            asked = true;
            continue;
        }
        asked = false;
        if (!*line) continue;
        if (strcmp(line, "/bye") == 0 || strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) break;
        if (strcmp(line, "/help") == 0) {
            fputs(k_help, stdout);
        } else if (strcmp(line, "/new") == 0) {
            drop_messages(c, first);
            c->transcript.n = said_text = 0;
            if (c->transcript.p) c->transcript.p[0] = 0;
        } else if (strcmp(line, "/again") == 0) {
            if (c->tmpl && c->n_msgs > first + 1) {
                drop_messages(c, c->n_msgs - 1);
                turn(c, c->n_msgs, 0);
            } else if (!c->tmpl && said_text) {
                c->transcript.p[c->transcript.n = said_text] = 0;
                turn(c, 0, said_text);
            } else {
                fputs("there is no answer yet\n", stderr);
            }
        } else if (line[0] == '/' && line[1] >= 'a' && line[1] <= 'z' && !strchr(line + 1, '/') && !strchr(line, ' ')) {
            fprintf(stderr, "there is no command %.40s\n%s", line, k_help);
        } else {
            ash_error e = {0};
            size_t keep_msgs = c->n_msgs, keep_text = c->transcript.n;
            ash_status st = check_utf8("the line", line, strlen(line), &e);
            if (st != ASH_OK && !tty) return *err = e, st;
            if (st == ASH_OK) st = say(c, line, strlen(line), &e);
            if (st != ASH_OK) {
                cli_fail(&e, st);
                continue;
            }
            said_text = c->transcript.n;
            turn(c, keep_msgs, keep_text);
        }
    }
    line_done();
    return ASH_OK;
}

/* ---- set-up ---- */
static char *token_text(const ash_vocab *v, ash_token t) {
    ash_str s = t < 0 ? (ash_str){"", 0} : ash_vocab_token_text(v, t);
    return strndup(s.p ? s.p : "", s.n);
}

static int sampler_options(chat *c, ash_logit_bias *bias) {
    ash_sampler_opts o = ash_sampler_defaults(ash_model_gguf(c->m));
    if (temp >= 0) o.temperature = (float)temp;
    if (top_k >= 0) o.top_k = top_k > INT32_MAX ? INT32_MAX : (int32_t)top_k;
    if (top_p >= 0) o.top_p = (float)top_p;
    if (min_p >= 0) o.min_p = (float)min_p;
    if (repeat >= 0) o.repeat_penalty = (float)repeat;
    o.presence_penalty = (float)presence;
    o.frequency_penalty = (float)frequency;
    if (last_n > INT32_MAX || last_n < -2) return cli_usage("--penalty-last-n must be -1 or more");
    if (last_n >= -1) o.penalty_last_n = (int32_t)last_n;
    o.seed = seed >= 0 ? (uint64_t)seed : (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 20);
    for (int i = 0; i < bias_args.n; i++) {
        char *end, *end2;
        long id = strtol(bias_args.v[i], &end, 10);
        if (end == bias_args.v[i] || *end != '=' || id < 0 || id > INT32_MAX) return cli_usage("--logit-bias takes ID=X, e.g. 42=-1.5");
        float x = strtof(end + 1, &end2);
        if (end2 == end + 1 || *end2) return cli_usage("--logit-bias takes ID=X, e.g. 42=-1.5");
        bias[i] = (ash_logit_bias){(ash_token)id, x};
    }
    o.bias = bias;
    o.n_bias = (size_t)bias_args.n;
    c->sampling = o;
    return 0;
}

static ash_status set_up(chat *c, const char *path, ash_error *err) {
    ASH_TRY(ash_model_load(&c->m, path, err));
    ASH_TRY(cli_weights_place(&weights, c->m, err));
    c->v = ash_model_vocab(c->m, err);
    if (!c->v) return err->code;
    ash_session_opts o = ash_session_defaults();
    o.n_ctx = (uint32_t)ctx;
    ASH_TRY(cli_cache_types(&o.cache_k, &o.cache_v, err));
    o.n_batch = (uint32_t)batch;
    o.n_threads = g_threads;
    ASH_TRY(cli_loras_load(&c->loras, &lora_args, c->m, &o, err));
    ASH_TRY(ash_session_new(&c->s, c->m, &o, err));
    if (session_path && access(session_path, F_OK) == 0) ASH_TRY(ash_session_load(c->s, session_path, err));
    ASH_TRY(ash_detok_new(&c->d, c->v, false, err));
    ASH_TRY(cli_constraint(grammar_arg, schema_arg, strict_schema, &c->grammar, err));
    if (c->grammar) ASH_TRY(ash_matcher_new(&c->matcher, c->grammar, c->v, err));
    c->bos = token_text(c->v, ash_vocab_bos(c->v));
    c->eos = token_text(c->v, ash_vocab_eos(c->v));
    if (!c->bos || !c->eos) return ash_fail(err, ASH_E_NOMEM, "out of memory");
    ash_str src;
    if (!raw && ash_gguf_get_str(ash_model_gguf(c->m), "tokenizer.chat_template", &src)) {
        ash_status st = ash_tmpl_parse(&c->tmpl, src.p, src.n, err);
        if (st != ASH_OK) return ash_error_prefix(err, "chat template (try --raw): ");
        char *stray;
        ASH_TRY(ash_tmpl_stray_tokens(c->tmpl, c->v, c->bos, c->eos, &stray, err));
        for (char *p = stray, *q; (q = strchr(p, '\n')); p = q + 1)
            fprintf(stderr, "ashlar run: warning: the chat template prints %.*s, which is no special token of this vocabulary\n", (int)(q - p), p);
        ash_text_free(stray);
    }
    if (var_args.n) {
        const char *bad;
        c->vars = cli_vars_json(&var_args, &bad);
        if (!c->vars) return bad ? ash_fail(err, ASH_E_USAGE, "--template-var takes NAME=VALUE, not \"%s\"", bad) : ash_fail(err, ASH_E_NOMEM, "out of memory");
    }
    if (!system_arg) return ASH_OK;
    if (!c->tmpl) return ash_fail(err, ASH_E_USAGE, "--system needs a chat template%s", raw ? "" : "; the file has none");
    ASH_TRY(check_utf8("the system message", system_arg, strlen(system_arg), err));
    return add_message(c, "system", system_arg, err);
}

static int run(int argc, char **argv) {
    if (batch < 0 || batch > 65536) return cli_usage("--batch must be 1 to 65536");
    if (ctx < 0 || ctx > 1 << 28) return cli_usage("--ctx must be 1 to 268435456");
    if (n_predict < -1) return cli_usage("-n must be 0 or more");
    if (argc < 2 && g_json) return cli_usage("--json needs a PROMPT");
    struct sigaction sa = {.sa_handler = on_sigint}; /* no SA_RESTART: a wait for input returns */
    sigaction(SIGINT, &sa, NULL);
    chat c = {0};
    ash_error err = {0};
    ash_logit_bias bias[64];
    ash_status st = set_up(&c, argv[0], &err);
    int rc = 0;
    if (st == ASH_OK && (rc = sampler_options(&c, bias)) == 0) {
        c.more = argc < 2 || session_path;
        st = argc < 2 ? conversation(&c, &err) : one_shot(&c, argv[1], &err);
        if (st == ASH_OK && session_path) st = ash_session_save(c.s, session_path, &err);
    }
    if (st != ASH_OK) rc = cli_fail(&err, st);
    drop_messages(&c, 0);
    free(c.msgs);
    free(c.transcript.p);
    free(c.answer.p);
    free(c.vars);
    free(c.bos);
    free(c.eos);
    ash_tmpl_free(c.tmpl);
    ash_matcher_free(c.matcher);
    ash_grammar_free(c.grammar);
    ash_detok_free(c.d);
    ash_session_free(c.s);
    cli_loras_free(&c.loras);
    ash_model_free(c.m);
    return rc;
}

const ash_cmd cmd_run = {.name = "run",
                         .usage = "MODEL [PROMPT]",
                         .summary = "Answer a prompt, or chat.",
                         .details = "With PROMPT (\"-\": standard input) one answer is written to standard output. Without it a chat begins, one message per "
                                    "line. The file's chat template is used where it has one, else the text is continued as it is. Ctrl-C stops the answer, "
                                    "not the program; a second one at the prompt leaves. Sampling defaults come from the file's general.sampling keys.",
                         .opts = options,
                         .min_args = 1,
                         .max_args = 2,
                         .json = true,
                         .threads = true,
                         .run = run};
