/* facts.c - opens what there is (file, header, config.json) and reads the facts. A model that the engine knows says them all; of others the shapes of
 * the tensors and the common keys say what they can. */
#include "assess/assess_int.h"

#include "ashlar/convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

ash_assess_opts ash_assess_defaults(void) { return (ash_assess_opts){.session = ash_session_defaults()}; }

int64_t ash_assess_layer_of(const char *name) {
    char *end;
    if (strncmp(name, "blk.", 4) != 0) return -1;
    long l = strtol(name + 4, &end, 10);
    return end == name + 4 || *end != '.' || l < 0 || l > 1 << 20 ? -1 : l;
}

static bool same(const char *a, const char *b) { return strcmp(a, b) == 0; }

static bool is_token_table(const char *n) { return same(n, "token_embd.weight") || same(n, "per_layer_token_embd.weight") || same(n, "output.weight"); }

bool ash_assess_is_lookup(const ash_assess *a, const ash_gguf_tensor *t) {
    if (same(t->name, "token_embd.weight")) return !a->f.tied;
    return same(t->name, "per_layer_token_embd.weight") || same(t->name, "position_embd.weight") || same(t->name, "token_types.weight");
}

bool ash_assess_is_dead(const ash_assess *a, const ash_gguf_tensor *t) {
    const int64_t l = ash_assess_layer_of(t->name);
    if (!a->model || l < 0 || l >= a->f.n_layer || a->model->layers[l].kv_layer == l) return false;
    const char *leaf = strchr(t->name + 4, '.') + 1;
    return strncmp(leaf, "attn_k.", 7) == 0 || strncmp(leaf, "attn_v.", 7) == 0 || strncmp(leaf, "attn_k_norm.", 12) == 0;
}

/* ARCH.key, the il-th of an array. */
static int64_t number(const ash_assess *a, const char *key, int64_t il, int64_t missing) {
    char name[160];
    int64_t v;
    snprintf(name, sizeof name, "%s.%s", a->arch, key);
    const ash_gguf_kv *kv = ash_gguf_find(a->g, name);
    if (!kv) return missing;
    if (kv->type == ASH_GV_ARRAY) return ash_gguf_array_i64(kv, (uint64_t)il, &v) ? v : missing;
    return ash_gguf_get_i64(a->g, name, &v) ? v : missing;
}

static const ash_gguf_tensor *in_layer(const ash_assess *a, int64_t il, const char *leaf) {
    char name[96];
    snprintf(name, sizeof name, "blk.%lld.%s.weight", (long long)il, leaf);
    return ash_gguf_find_tensor(a->g, name);
}

static void layer_by_model(const ash_model *m, int il, ash_layer_facts *f) {
    const ash_layer *l = &m->layers[il];
    f->experts = l->moe != NULL;
    f->n_ff = l->w[ASH_W_DOWN].data ? (int64_t)l->w[ASH_W_DOWN].K : l->moe ? l->moe->n_ff : 0;
    f->n_head = l->n_head;
    f->n_head_kv = l->n_head_kv;
    f->head_dim = l->head_dim;
    f->window = l->window;
    f->kv_layer = l->kv_layer;
}

static void layer_by_shape(const ash_assess *a, int64_t il, ash_layer_facts *f) {
    const ash_gguf_tensor *down = in_layer(a, il, "ffn_down"), *exps = in_layer(a, il, "ffn_down_exps");
    f->experts = exps != NULL;
    f->n_ff = down ? (int64_t)down->ne[0] : exps ? (int64_t)exps->ne[0] : 0;
    f->n_head = number(a, "attention.head_count", il, 0);
    f->n_head_kv = number(a, "attention.head_count_kv", il, f->n_head);
    f->head_dim = number(a, "attention.key_length", il, f->n_head > 0 ? a->f.n_embd / f->n_head : 0);
    f->window = ASH_WINDOW_UNKNOWN;
    f->kv_layer = -1;
}

static void sum_tensors(ash_assess *a) {
    ash_model_facts *f = &a->f;
    double ff = 0, ffr = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const ash_gguf_tensor *t = ash_gguf_tensor_at(a->g, i);
        const uint64_t n = ash_assess_weights(t);
        const int64_t l = ash_assess_layer_of(t->name);
        f->n_weights += n;
        f->tensor_bytes += t->n_bytes;
        if (is_token_table(t->name)) f->embd_weights += n;
        if (ash_assess_is_lookup(a, t)) f->lookup_weights += n;
        bool dead = ash_assess_is_dead(a, t);
        if (dead) f->dead_weights += n, a->dead[f->n_dead++] = t->name;
        if (l < 0 || l >= f->n_layer) continue;
        a->layers[l].n_weights += n;
        if (dead) a->layers[l].dead_weights += n;
        if (strncmp(strchr(t->name + 4, '.') + 1, "ffn_", 4) == 0 && t->n_dims > 1) ff += (double)n, ffr += (double)n * a->layers[l].ffn_ratio;
    }
    f->ffn_ratio_mean = ff > 0 ? ffr / ff : 0;
}

ash_status ash_assess_read_facts(ash_assess *a, ash_error *err) {
    ash_model_facts *f = &a->f;
    ash_str s = {.p = "", .n = 0};
    if (!ash_gguf_get_str(a->g, "general.architecture", &s)) return ash_fail(err, ASH_E_FORMAT, "key general.architecture is missing");
    snprintf(a->arch, sizeof a->arch, "%.*s", (int)ASH_MIN(s.n, sizeof a->arch - 1), s.p);
    if (ash_gguf_get_str(a->g, "general.name", &s)) snprintf(a->name, sizeof a->name, "%.*s", (int)ASH_MIN(s.n, sizeof a->name - 1), s.p);
    f->arch = a->arch;
    f->name = a->name;
    f->why_not = a->why;
    f->runs = a->model != NULL;
    f->has_weights = !ash_gguf_hollow(a->g);
    f->n_tensors = ash_gguf_n_tensors(a->g);
    const ash_gguf_tensor *embd = ash_gguf_find_tensor(a->g, "token_embd.weight");
    f->n_layer = a->model ? a->model->hp.n_layer : number(a, "block_count", 0, 0);
    f->n_embd = a->model ? a->model->hp.n_embd : number(a, "embedding_length", 0, embd ? (int64_t)embd->ne[0] : 0);
    f->n_vocab = embd ? (int64_t)embd->ne[1] : number(a, "vocab_size", 0, 0);
    f->n_ctx_train = number(a, "context_length", 0, 0);
    f->n_expert = number(a, "expert_count", 0, 0);
    f->n_expert_used = number(a, "expert_used_count", 0, 0);
    f->tied = a->model ? a->model->tied : !ash_gguf_find_tensor(a->g, "output.weight");
    if (f->n_layer < 1 || f->n_layer > 1 << 16 || f->n_embd < 1 || !f->n_tensors) return ash_fail(err, ASH_E_FORMAT, "the file describes no model: no layers, no width or no tensors");
    a->layers = ash_calloc((size_t)f->n_layer, sizeof *a->layers);
    a->dead = ash_calloc(f->n_tensors, sizeof *a->dead);
    if (!a->layers || !a->dead) return ash_fail(err, ASH_E_NOMEM, "out of memory for a model's facts");
    for (int64_t il = 0; il < f->n_layer; il++) {
        ash_layer_facts *l = &a->layers[il];
        if (a->model) layer_by_model(a->model, (int)il, l);
        else layer_by_shape(a, il, l);
        l->ffn_ratio = (double)l->n_ff / (double)f->n_embd;
        f->ffn_ratio_min = il ? fmin(f->ffn_ratio_min, l->ffn_ratio) : l->ffn_ratio;
        f->ffn_ratio_max = il ? fmax(f->ffn_ratio_max, l->ffn_ratio) : l->ffn_ratio;
        if (l->window > 0) f->n_window++;
        else if (l->window == 0) f->n_full++;
    }
    f->ffn_ratio = a->layers[0].ffn_ratio;
    sum_tensors(a);
    return ASH_OK;
}

/* ---- opening ---- */
static bool is_dir(const char *p) {
    struct stat st;
    return stat(p, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_json(const char *p) {
    size_t n = strlen(p);
    return n > 5 && same(p + n - 5, ".json");
}

static ash_status open_any(ash_assess *a, const char *path, ash_error *err) {
    ash_error e = {0};
    ash_gguf *g = NULL;
    ash_buf p = {0};
    ash_status st = ASH_OK;
    const bool dir = is_dir(path);
    if (dir || is_json(path)) {
        ash_buf_adds(&p, path);
        if (dir) ash_buf_adds(&p, "/config.json");
        if (!ash_buf_ok(&p)) st = ash_fail(err, ASH_E_NOMEM, "out of memory");
        for (int again = 0; st == ASH_OK && again < 2 && !a->model; again++) { /* a model that cannot be bound takes its file with it */
            st = ash_convert_header(&g, p.p, err);
            if (st == ASH_OK && !again) {
                if (ash_model_load_gguf(&a->model, g, &e) != ASH_OK) snprintf(a->why, sizeof a->why, "%s", e.msg);
            } else a->own = g;
        }
        a->f.from_config = true;
        ash_buf_free(&p);
        return st;
    }
    if (ash_model_load(&a->model, path, &e) == ASH_OK) a->f.file_bytes = ash_gguf_file_bytes(ash_model_gguf(a->model));
    else {
        uint64_t lost = 0;
        st = ash_gguf_open(&a->own, path, &e); /* whole, of another architecture? */
        if (st == ASH_OK) {
            a->f.file_bytes = ash_gguf_file_bytes(a->own);
            ash_error why = {0};
            if (ash_model_load(&a->model, path, &why) != ASH_OK) snprintf(a->why, sizeof a->why, "%s", strstr(why.msg, path) == why.msg ? why.msg + strlen(path) + 2 : why.msg);
            return ASH_OK;
        }
        if (ash_gguf_open_cut(&g, path, &lost, NULL) != ASH_OK || !lost) {
            ash_gguf_close(g);
            if (err) *err = e;
            return st;
        }
        a->f.lost_bytes = lost;
        a->f.file_bytes = ash_gguf_file_bytes(g) - lost;
        if (ash_model_load_gguf(&a->model, g, &e) != ASH_OK) {
            snprintf(a->why, sizeof a->why, "%s", e.msg);
            return ash_gguf_open_cut(&a->own, path, &lost, err);
        }
    }
    return ASH_OK;
}

ash_status ash_assess_new(ash_assess **out, const char *path, const ash_assess_opts *o, ash_error *err) {
    *out = NULL;
    ash_assess *a = ash_calloc(1, sizeof *a);
    if (!a) return ash_fail(err, ASH_E_NOMEM, "out of memory for an assessment");
    a->o = *o;
    ash_status st = open_any(a, path, err);
    if (st == ASH_OK) {
        a->g = a->model ? ash_model_gguf(a->model) : a->own;
        st = ash_assess_read_facts(a, err);
    }
    if (st == ASH_OK && !a->o.ram) a->o.ram = ash_ram_read().total;
    if (st == ASH_OK) st = ash_assess_read_recipes(a, err);
    if (st == ASH_OK && o->predict && a->f.has_weights) st = ash_assess_predict(a, err);
    if (st == ASH_OK) *out = a;
    else ash_assess_free(a);
    return st;
}

void ash_assess_free(ash_assess *a) {
    if (!a) return;
    ash_model_free(a->model);
    ash_gguf_close(a->own);
    ash_free(a->layers);
    ash_free(a->dead);
    ash_free(a->recipes);
    ash_free(a);
}

const ash_model_facts *ash_assess_facts(const ash_assess *a) { return &a->f; }
const ash_layer_facts *ash_assess_layers(const ash_assess *a) { return a->layers; }
const char *ash_assess_dead(const ash_assess *a, size_t i) { return i < a->f.n_dead ? a->dead[i] : NULL; }
