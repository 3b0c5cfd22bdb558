/* task_run.c - a model on the items of a task. A choice is scored by the log-likelihood of its tokens after the prompt's; an
 * answer is generated greedily and cut at the first mark that would begin another item. */
#include "ashlar/task.h"

#include "eval/chat.h"
#include "eval/exec.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

enum { MAX_CTX = 32768 };

ash_task_opts ash_task_defaults(void) { return (ash_task_opts){.max_tokens = 256, .seed = 1}; }

void ash_task_result_free(ash_task_result *r) {
    if (!r) return;
    for (size_t i = 0; r->answers && i < r->n; i++) ash_free(r->answers[i]);
    ash_free(r->answers);
    ash_free(r->correct);
    ash_free(r->margin);
    *r = (ash_task_result){0};
}

typedef struct {
    ash_model *m;
    const ash_vocab *v;
    const ash_tasks *t;
    const ash_task_opts *o;
    const ash_kern *k;
    ash_chat chat;
    ash_session *s;
    ash_buf shots;    /* text before each prompt */
    uint32_t max_tokens;
} job;

/* ---- prompts ---- */
static ash_status prompt_tokens(const job *j, const ash_task_item *it, const char *more, ash_token **t, size_t *n, ash_error *err) {
    if (j->o->chat) {
        json_t *l = json_pack("[{s:s, s:s}]", "role", "user", "content", it->prompt);
        char *s = l ? json_dumps(l, JSON_COMPACT) : NULL;
        ash_status st = s ? ash_chat_tokens(&j->chat, s, true, t, n, NULL, NULL, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a prompt");
        free(s);
        json_decref(l);
        return st;
    }
    ash_buf b = {0};
    ash_buf_add(&b, j->shots.p ? j->shots.p : "", j->shots.n);
    ash_buf_adds(&b, it->prompt);
    ash_buf_adds(&b, more);
    ash_status st = ash_buf_ok(&b) ? ash_tokenize(j->v, b.p, b.n, ASH_TOKENIZE_BOS, t, n, err) : ash_fail(err, ASH_E_NOMEM, "out of memory for a prompt");
    ash_buf_free(&b);
    return st;
}

/* ---- choices ---- */
typedef struct {
    const ash_kern *k;
    const ash_token *t;
    size_t n;
    int64_t n_vocab;
    double sum;
} score;

static ash_status add_score(void *ctx, size_t pos, const float *logits, ash_error *err) {
    (void)err;
    score *s = ctx;
    if (pos + 1 < s->n) s->sum += (double)logits[s->t[pos + 1]] - s->k->lse(logits, s->n_vocab);
    return ASH_OK;
}

static ash_status choose(const job *j, size_t i, const ash_task_item *it, ash_task_result *r, ash_error *err) {
    ash_token *p = NULL, *t = NULL;
    size_t np = 0, n = 0;
    double best = -INFINITY, best_raw = -INFINITY, right = 0, wrong = -INFINITY;
    uint32_t pick = 0, pick_raw = 0;
    ash_status st;
    ASH_TRY(prompt_tokens(j, it, "", &p, &np, err));
    st = ASH_OK;
    for (uint32_t c = 0; st == ASH_OK && c < it->n_choices; c++) {
        ASH_TRY_GOTO(prompt_tokens(j, it, it->choices[c], &t, &n, err), done);
        size_t from = 0; /* the choice begins where its tokens leave the prompt's; the last of those may have merged with it */
        while (from < np && from < n && p[from] == t[from]) from++;
        if (from == n || from == 0) from = n > 1 ? n - 1 : 1;
        score s = {j->k, t, n, ash_model_n_vocab(j->m), 0};
        if (n > 1) ASH_TRY_GOTO(ash_session_eval_all(j->s, t, n, from - 1, add_score, &s, err), done);
        double per_byte = s.sum / (double)strlen(it->choices[c]);
        if (per_byte > best) best = per_byte, pick = c;
        if (s.sum > best_raw) best_raw = s.sum, pick_raw = c;
        if (c == it->answer) right = per_byte;
        else if (per_byte > wrong) wrong = per_byte;
        ash_tokens_free(t);
        t = NULL;
    }
    r->correct[i] = pick == it->answer && best > -INFINITY;
    r->n_correct_raw += pick_raw == it->answer && best_raw > -INFINITY;
    r->margin[i] = right - wrong;
done:
    ash_tokens_free(p);
    ash_tokens_free(t);
    return st;
}

/* ---- answers ---- */
/* Marks that end an answer of this kind, as a NULL-terminated list. */
static const char *const *stops(const job *j, const ash_task_item *it) {
    static const char *const code[] = {"\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\n#", "\n```", NULL};
    static const char *const number[] = {"\n\n", "Question:", NULL}, *const line[] = {"\n", NULL}, *const none[] = {NULL};
    if (it->kind == ASH_TASK_CODE) return code;
    if (j->o->chat) return none;
    if (it->kind == ASH_TASK_NUMBER) return number;
    return strchr(it->expected, '\n') ? none : line;
}

/* The text ends in three times the same piece of 8 to 200 bytes. */
bool ash_text_loops(const char *s, size_t n) {
    for (size_t k = 8; k <= 200 && 3 * k <= n; k++)
        if (memcmp(s + n - k, s + n - 2 * k, k) == 0 && memcmp(s + n - k, s + n - 3 * k, k) == 0) return true;
    return false;
}

static ash_token argmax(const float *x, int64_t n) {
    int64_t b = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[b]) b = i;
    return (ash_token)b;
}

static ash_status answer(const job *j, size_t i, const ash_task_item *it, ash_task_result *r, ash_error *err) {
    const char *const *stop = stops(j, it);
    ash_token *t = NULL;
    size_t n = 0;
    ash_buf text = {0};
    ash_detok *d = NULL;
    ash_status st;
    bool cut = true;
    ASH_TRY_GOTO(prompt_tokens(j, it, "", &t, &n, err), done);
    if (n == 0) {
        st = ash_fail(err, ASH_E_FORMAT, "the prompt is empty");
        goto done;
    }
    ASH_TRY_GOTO(ash_detok_new(&d, j->v, false, err), done);
    ASH_TRY_GOTO(ash_session_sync(j->s, t, n, NULL, err), done);
    ash_buf_adds(&text, "");
    for (uint32_t k = 0; cut && k < j->max_tokens; k++) {
        ash_token next = argmax(ash_session_logits(j->s), ash_model_n_vocab(j->m));
        ash_str piece;
        if (ash_vocab_is_eog(j->v, next)) {
            cut = false;
            break;
        }
        ASH_TRY_GOTO(ash_detok_next(d, next, &piece, err), done);
        size_t before = text.n;
        ash_buf_add(&text, piece.p, piece.n);
        if (!ash_buf_ok(&text)) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for an answer");
            goto done;
        }
        for (const char *const *m = stop; *m; m++) {
            size_t back = ASH_MIN(before, strlen(*m) - 1);
            char *at = strstr(text.p + before - back, *m);
            bool first = at && strspn(text.p, " \t\r\n") >= (size_t)(at - text.p); /* nothing but space before it: not an end yet */
            if (!at || (first && it->kind != ASH_TASK_CODE && !strstr(*m, "Q"))) continue;
            text.n = (size_t)(at - text.p);
            text.p[text.n] = 0;
            cut = false;
            break;
        }
        if (cut && k + 1 < j->max_tokens) ASH_TRY_GOTO(ash_session_append(j->s, next, err), done);
    }
    r->correct[i] = ash_task_match(it, text.p);
    r->n_cut += cut;
    r->n_loops += ash_text_loops(text.p, text.n);
    r->answers[i] = ash_strdup(text.p);
    st = r->answers[i] ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for an answer");
done:
    ash_detok_free(d);
    ash_tokens_free(t);
    ash_buf_free(&text);
    return st;
}

/* ---- the whole task ---- */
/* The longest timeline any item needs. */
static ash_status longest(const job *j, size_t first, size_t n, size_t *out, ash_error *err) {
    *out = 0;
    for (size_t i = first; i < first + n; i++) {
        const ash_task_item *it = ash_tasks_at(j->t, i);
        for (uint32_t c = 0; c < ASH_MAX(it->n_choices, 1u); c++) {
            ash_token *t;
            size_t k;
            ASH_TRY(prompt_tokens(j, it, it->n_choices ? it->choices[c] : "", &t, &k, err));
            ash_tokens_free(t);
            if (!it->n_choices) k += j->max_tokens;
            if (k > MAX_CTX) return ash_fail(err, ASH_E_LIMIT, "line %u needs %zu tokens; %d are possible", it->line, k, MAX_CTX);
            *out = ASH_MAX(*out, k);
        }
    }
    return ASH_OK;
}

ash_status ash_task_run(ash_task_result *r, ash_model *m, const ash_tasks *t, const ash_task_opts *o, ash_error *err) {
    *r = (ash_task_result){.kind = ash_tasks_at(t, 0)->kind};
    job j = {.m = m, .t = t, .o = o, .k = ash_kern_get(ash_cpu_detect()), .max_tokens = o->max_tokens ? o->max_tokens : 256};
    size_t need = 0, n;
    const bool choice = r->kind == ASH_TASK_CHOICE;
    const double t0 = ash_now();
    ash_status st = ASH_OK;
    if (!ash_model_generates(m)) return ash_fail(err, ASH_E_UNSUPPORTED, "an encoder predicts no text");
    if (o->n_shots >= ash_tasks_n(t)) return ash_fail(err, ASH_E_USAGE, "%u examples of %zu items leave none to score", o->n_shots, ash_tasks_n(t));
    if (o->chat && (choice || o->n_shots)) return ash_fail(err, ASH_E_USAGE, "the chat template goes with generated answers without examples");
    if (j.max_tokens > MAX_CTX) return ash_fail(err, ASH_E_USAGE, "an answer of %u tokens is too long", j.max_tokens);
    n = ash_tasks_n(t) - o->n_shots;
    if (o->n_items && o->n_items < n) n = o->n_items;
    j.v = ash_model_vocab(m, err);
    if (!j.v) return err ? err->code : ASH_E_UNSUPPORTED;
    if (o->chat) ASH_TRY(ash_chat_init(&j.chat, m, err));
    for (uint32_t i = 0; i < o->n_shots; i++) {
        const ash_task_item *it = ash_tasks_at(t, i);
        ash_buf_addf(&j.shots, "%s%s\n\n", it->prompt, it->gold);
    }
    if (!ash_buf_ok(&j.shots)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for examples");
        goto done;
    }
    ASH_TRY_GOTO(longest(&j, o->n_shots, n, &need, err), done);
    ash_session_opts so = ash_session_defaults();
    so.n_ctx = (uint32_t)ASH_MAX(need, (size_t)16);
    so.n_threads = o->n_threads;
    so.precision = o->precision;
    so.cache_k = o->cache_k;
    so.cache_v = o->cache_v;
    ASH_TRY_GOTO(ash_session_new(&j.s, m, &so, err), done);
    r->correct = ash_calloc(n, 1);
    if (choice) r->margin = ash_calloc(n, sizeof *r->margin);
    else r->answers = ash_calloc(n, sizeof *r->answers);
    if (!r->correct || (!r->margin && !r->answers)) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %zu results", n);
        goto done;
    }
    r->n = n;
    for (size_t i = 0; i < n; i++) {
        const ash_task_item *it = ash_tasks_at(t, o->n_shots + i);
        ASH_TRY_GOTO(ash_progress_at(&o->progress, "task", (double)i, (double)n, NULL, err), done);
        st = choice ? choose(&j, i, it, r, err) : answer(&j, i, it, r, err);
        if (st != ASH_OK) {
            if (err) ash_error_prefix(err, "line %u", it->line);
            goto done;
        }
        r->n_correct += r->correct[i];
    }
    r->accuracy = ash_wilson(r->n_correct, n);
    r->seconds = ash_now() - t0;
done:
    ash_session_free(j.s);
    ash_chat_free(&j.chat);
    ash_buf_free(&j.shots);
    if (st != ASH_OK) ash_task_result_free(r);
    return st;
}
