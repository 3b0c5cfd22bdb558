/* ashlar/task.h - tasks: multiple choice by log-likelihood, generated answers by exact match, and whether one model is better
 * than another at them. Files are JSONL, one item a line (docs/formats/tasks.md says which shapes are known). */
#ifndef ASHLAR_TASK_H
#define ASHLAR_TASK_H

#include "ashlar/eval.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    ASH_TASK_CHOICE,    /* one of several texts goes on best */
    ASH_TASK_TEXT,      /* a generated answer, equal but for spaces */
    ASH_TASK_NUMBER,    /* the number after "####", or the last one */
    ASH_TASK_CODE       /* a generated function body, equal line by line but for spaces at their ends. Nothing is ever run. */
} ash_task_kind;
ASH_API const char *ash_task_kind_name(ash_task_kind k); /* "choice", "text", "number", "code" */

typedef struct {
    ash_task_kind kind;
    const char *shape;          /* "hellaswag", "arc", "gsm8k", "humaneval", "own" */
    const char *prompt;
    const char *const *choices; /* CHOICE: as they continue the prompt, with the space between */
    uint32_t n_choices, answer;
    const char *expected;       /* else */
    const char *gold;           /* what follows the prompt where the item is shown as an example */
    uint32_t line;              /* in the file, from 1 */
} ash_task_item;

typedef struct ash_tasks ash_tasks; /* immutable */
/* Errors name the line. All items of a file are of one kind. */
ASH_API ash_status ash_tasks_load(ash_tasks **t, const char *path, ash_error *err);
ASH_API ash_status ash_tasks_parse(ash_tasks **t, const char *text, size_t n, ash_error *err);
ASH_API void ash_tasks_free(ash_tasks *t);
ASH_API size_t ash_tasks_n(const ash_tasks *t);
ASH_API const ash_task_item *ash_tasks_at(const ash_tasks *t, size_t i);
/* Whether a generated text is the expected one, by the item's kind. */
ASH_API bool ash_task_match(const ash_task_item *item, const char *text);

typedef struct {
    uint32_t n_items;        /* score at most so many; 0: all */
    uint32_t n_shots;        /* the file's first items are shown before each one and not scored */
    uint32_t max_tokens;     /* of a generated answer; 0: 256 */
    bool chat;               /* the prompt is a user's message in the model's template, without examples */
    int n_threads;
    ash_precision precision;
    ash_kv_type cache_k, cache_v;
    uint64_t seed;           /* of bootstraps */
    ash_progress progress;
} ash_task_opts;
ASH_API ash_task_opts ash_task_defaults(void);

typedef struct {
    ash_task_kind kind;
    size_t n, n_correct;
    uint8_t *correct;        /* [n]; CHOICE: by log-likelihood per byte */
    size_t n_correct_raw;    /* CHOICE: by log-likelihood as it is */
    size_t n_cut;            /* answers that reached max_tokens */
    size_t n_loops;          /* answers that end in a repetition */
    ash_est accuracy;        /* with Wilson's interval */
    char **answers;          /* [n] generated texts; NULL for CHOICE */
    double *margin;          /* [n] CHOICE: per-byte log-likelihood of the right one minus the best wrong one */
    double seconds;
} ash_task_result;
ASH_API void ash_task_result_free(ash_task_result *r);
ASH_API ash_status ash_task_run(ash_task_result *r, ash_model *m, const ash_tasks *t, const ash_task_opts *o, ash_error *err);

/* Two models on the same items. */
typedef struct {
    size_t n, both, neither, only_a, only_b;
    ash_est difference;      /* accuracy of a minus that of b, paired bootstrap over items */
    double p;                /* McNemar's exact test, two-sided */
} ash_task_pair;
ASH_API ash_status ash_task_compare(ash_task_pair *p, const ash_task_result *a, const ash_task_result *b, uint64_t seed, ash_error *err);
/* Two-sided exact binomial test of a split of a + b into a and b with equal chances. */
ASH_API double ash_binomial_p(size_t a, size_t b);
/* Wilson's 95 % interval of k of n. */
ASH_API ash_est ash_wilson(size_t k, size_t n);

/* A text for ash_eval_measure made of conversations: {"messages": [{"role", "content"}]} a line, a bare array of messages,
 * {"conversations": [{"from", "value"}]}, or {"question", "answer"}; rendered by the model's template, one after the other. */
ASH_API ash_status ash_eval_text_chat(ash_eval_text *t, const ash_model *m, const char *path, uint32_t *n_conversations, ash_error *err);

#ifdef __cplusplus
}
#endif
#endif
