/* cmd_eval.c - `ashlar eval`: perplexity of a model on a text, and its KL divergence to a reference. */
#include "cli.h"

#include "ashlar/eval.h"
#include "eval_task.h"
#include "measure.h"
#include "model_args.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_path, *ref_path, *ref_model, *save_ref, *save_base, *chat_path, *task_path, *answers_path;
static int64_t n_ctx = 512, n_chunks, seed = 1, n_shots, n_items, max_tokens = 256;
static bool fast, chat_template;
static opt_list lora_args;

static const opt_def options[] = {
    {OPT_STR, 0, "text", "FILE", "Text to measure on (default: the wikitext-2 test text that ships with the program).", &text_path},
    {OPT_STR, 0, "chat", "FILE", "Measure on conversations (JSONL) in the model's own template instead of a text.", &chat_path},
    {OPT_STR, 0, "ref", "REF", "Reference: a model, an .aref file, or llama-perplexity's --kl-divergence-base file.", &ref_path},
    {OPT_STR, 0, "ref-model", "GGUF", "Model of an .aref file, where it has moved.", &ref_model},
    {OPT_STR, 0, "save-ref", "FILE", "Write MODEL's own reference (.aref) for later runs and stop.", &save_ref},
    {OPT_STR, 0, "save-base", "FILE", "Write MODEL's llama-perplexity base file and stop.", &save_base},
    {OPT_I64, 0, "ctx", "N", "Tokens per chunk; the second half is scored.", &n_ctx},
    {OPT_I64, 0, "chunks", "N", "Chunks to measure (default: all).", &n_chunks},
    {OPT_I64, 0, "seed", "N", "Seed of the bootstrap.", &seed},
    {OPT_STR, 0, "task", "FILE", "Score a task (JSONL: multiple choice or generated answers); --ref is then a second model to compare with.", &task_path},
    {OPT_I64, 0, "shots", "N", "Items shown with their answers before each one of a task (default 0).", &n_shots},
    {OPT_I64, 0, "items", "N", "Items of a task to score (default: all).", &n_items},
    {OPT_I64, 0, "max-tokens", "N", "Longest generated answer (default 256).", &max_tokens},
    {OPT_FLAG, 0, "chat-template", NULL, "Ask a task's questions as a user in the model's template.", &chat_template},
    {OPT_STR, 0, "answers", "FILE", "Write a task's generated answers there as JSONL.", &answers_path},
    {OPT_FLAG, 0, "fast", NULL, "8-bit activations, as in everyday runs (default: float32).", &fast},
    CLI_LORA_OPT(&lora_args),
    CLI_CACHE_OPTIONS,
    {OPT_END, 0, NULL, NULL, NULL, NULL}};

static json_t *est(ash_est e) {
    json_t *o = json_object();
    json_object_set_new(o, "value", json_real(e.v));
    json_object_set_new(o, "lo", json_real(e.lo));
    json_object_set_new(o, "hi", json_real(e.hi));
    return o;
}

static json_t *reals(const double *v, uint32_t n) {
    json_t *a = json_array();
    for (uint32_t i = 0; i < n; i++) json_array_append_new(a, json_real(v[i]));
    return a;
}

static int print_json(const char *model, const ash_eval_text *t, const ash_eval_ref *ref, const ash_eval_result *r) {
    json_t *o = json_object();
    const char *sha = t ? t->sha256 : ash_eval_ref_text_sha256(ref);
    json_object_set_new(o, "model", json_string(model));
    json_object_set_new(o, "text_sha256", *sha ? json_string(sha) : json_null());
    json_object_set_new(o, "precision", json_string(fast ? "fast" : "exact"));
    if (g_cache_k) json_object_set_new(o, "cache_k", json_string(g_cache_k));
    if (g_cache_v) json_object_set_new(o, "cache_v", json_string(g_cache_v));
    json_object_set_new(o, "n_ctx", json_integer(r->n_ctx));
    json_object_set_new(o, "n_chunks", json_integer(r->n_chunks));
    json_object_set_new(o, "n_scored", json_integer((json_int_t)r->n_scored));
    json_object_set_new(o, "ppl", est(r->ppl));
    if (r->has_ref) {
        json_object_set_new(o, "ref", json_string(ref_path));
        json_object_set_new(o, "ppl_ref", est(r->ppl_ref));
        json_object_set_new(o, "kld", est(r->kld));
        json_object_set_new(o, "kld_median", est(r->kld_median));
        json_object_set_new(o, "kld_p90", est(r->kld_p90));
        json_object_set_new(o, "kld_p99", est(r->kld_p99));
        json_object_set_new(o, "kld_p999", est(r->kld_p999));
        json_object_set_new(o, "kld_max", json_real(r->kld_max));
        json_object_set_new(o, "same_top1", est(r->same_top1));
        json_object_set_new(o, "rms_dp", est(r->rms_dp));
        json_object_set_new(o, "chunk_kld", reals(r->chunk_kld, r->n_chunks));
    }
    json_object_set_new(o, "chunk_nll", reals(r->chunk_nll, r->n_chunks));
    json_object_set_new(o, "seconds", json_real(r->seconds));
    return cli_print_json(o);
}

static void line(const char *name, ash_est e, double scale, const char *unit) {
    printf("%-22s %10.5f%s  [%.5f, %.5f]\n", name, scale * e.v, unit, scale * e.lo, scale * e.hi);
}

static void print_text(const ash_eval_result *r) {
    printf("%u chunks of %u tokens, %llu scored, %.1f s; 95 %% intervals over chunks\n", r->n_chunks, r->n_ctx, (unsigned long long)r->n_scored, r->seconds);
    line("perplexity", r->ppl, 1, "");
    if (!r->has_ref) return;
    line("perplexity, reference", r->ppl_ref, 1, "");
    line("KLD mean", r->kld, 1, "");
    line("KLD median", r->kld_median, 1, "");
    line("KLD 90 %", r->kld_p90, 1, "");
    line("KLD 99 %", r->kld_p99, 1, "");
    line("KLD 99.9 %", r->kld_p999, 1, "");
    printf("%-22s %10.5f\n", "KLD max", r->kld_max);
    line("same top-1", r->same_top1, 100, " %");
    line("RMS delta p", r->rms_dp, 100, " %");
}

static int run_task(const char *model) {
    ash_task_opts o = ash_task_defaults();
    ash_error err = {0};
    if (save_ref || save_base || ref_model) return cli_usage("--save-ref, --save-base and --ref-model do not go with --task");
    if (n_shots < 0 || n_shots > 1000) return cli_usage("--shots must be 0 to 1000");
    if (n_items < 0 || n_items > 1 << 20) return cli_usage("--items must be 0 (all) to 1048576");
    if (max_tokens < 1 || max_tokens > 32768) return cli_usage("--max-tokens must be 1 to 32768");
    cli_catch_sigint();
    o.n_shots = (uint32_t)n_shots;
    o.n_items = (uint32_t)n_items;
    o.max_tokens = (uint32_t)max_tokens;
    o.chat = chat_template;
    o.n_threads = g_threads;
    o.seed = (uint64_t)seed;
    o.precision = fast ? ASH_PREC_FAST : ASH_PREC_EXACT;
    o.progress = cli_progress();
    ash_status st = cli_cache_types(&o.cache_k, &o.cache_v, &err);
    return st == ASH_OK ? cli_eval_task(model, ref_path, task_path, answers_path, &o) : cli_fail(&err, st);
}

static int run(int argc, char **argv) {
    (void)argc;
    ash_error err = {0};
    ash_status st = ASH_OK;
    int code = 0;
    ash_model *m = NULL;
    ash_eval_text t = {0};
    ash_eval_ref *ref = NULL;
    ash_eval_result r = {0};
    ash_eval_opts o = ash_eval_defaults();
    ash_session_opts so = {0};
    cli_loras loras = {.n = 0};
    if (n_ctx < 8 || n_ctx > 1 << 20) return cli_usage("--ctx must be 8 to 1048576");
    if (n_chunks < 0 || n_chunks > 1 << 22) return cli_usage("--chunks must be 0 (all) to 4194304");
    if ((save_ref || save_base) && ref_path) return cli_usage("--save-ref and --save-base describe MODEL itself; --ref does not go with them");
    if (ref_model && !ref_path) return cli_usage("--ref-model goes with --ref");
    if ((text_path != NULL) + (chat_path != NULL) + (task_path != NULL) > 1) return cli_usage("one of --text, --chat and --task");
    if (task_path) return run_task(argv[0]);
    cli_catch_sigint();
    o.n_ctx = (uint32_t)n_ctx;
    o.n_chunks = (uint32_t)n_chunks;
    o.n_threads = g_threads;
    o.seed = (uint64_t)seed;
    o.precision = fast ? ASH_PREC_FAST : ASH_PREC_EXACT;
    o.progress = cli_progress();
    ASH_TRY_GOTO(cli_cache_types(&o.cache_k, &o.cache_v, &err), done);
    ASH_TRY_GOTO(ash_model_load(&m, argv[0], &err), done);
    ASH_TRY_GOTO(cli_loras_load(&loras, &lora_args, m, &so, &err), done);
    o.adapters = so.adapters, o.adapter_scales = so.adapter_scales, o.n_adapters = so.n_adapters;
    ASH_TRY_GOTO(cli_ref_load(&ref, &t, m, text_path, chat_path, ref_path, ref_model, &o, &err), done);
    if (save_ref || save_base) {
        if (save_base) ASH_TRY_GOTO(ash_eval_save_base(m, &t, &o, save_base, &err), done);
        if (save_ref) {
            ASH_TRY_GOTO(ash_eval_ref_compute(&ref, m, &t, &o, &err), done);
            ASH_TRY_GOTO(ash_eval_ref_save(ref, save_ref, &err), done);
        }
        cli_progress_done();
        goto done;
    }
    ASH_TRY_GOTO(ash_eval_measure(&r, m, t.tokens ? &t : NULL, ref, &o, &err), done);
    cli_progress_done();
    if (g_json) code = print_json(argv[0], t.tokens ? &t : NULL, ref, &r);
    else print_text(&r);
done:
    if (st != ASH_OK) code = cli_fail(&err, st);
    ash_eval_result_free(&r);
    ash_eval_ref_free(ref);
    ash_eval_text_free(&t);
    cli_loras_free(&loras);
    ash_model_free(m);
    return code;
}

const ash_cmd cmd_eval = {
    .name = "eval",
    .usage = "MODEL [--text FILE|--chat FILE|--task FILE] [--ref REF]",
    .summary = "Perplexity on a text, KL divergence to a reference, scores on tasks",
    .details = "Uses llama-perplexity's windows: chunks of --ctx tokens one after the other, the second half of each scored. With --ref it also "
               "reports the KL divergence of the model to the reference, in nats per token, with 95 % intervals from a bootstrap over chunks.\n\n"
               "A reference may be another model (both are run side by side), an .aref file written by --save-ref (final hidden states; the head "
               "is redone from the reference model, so the file is small), or a base file of llama-perplexity.\n\n"
               "--chat measures on conversations in the model's own chat template. --task scores multiple choice by log-likelihood and generated answers by exact match, "
               "with Wilson's intervals; with --ref both models answer, and McNemar's exact test and a paired bootstrap say whether they differ. HellaSwag-, ARC-, GSM8K- and "
               "HumanEval-shaped lines are known, and plain prompt + choices or prompt + answer (docs/formats/tasks.md). Generated code is compared as text, never run.",
    .opts = options,
    .min_args = 1,
    .max_args = 1,
    .json = true,
    .threads = true,
    .run = run};
