/* sweep_share.c - a pass of the sweep over several processes. Rank 0 decides as if it were alone; this file cuts what it decided into
 * one part per rank, tells everybody, and puts the results into every rank's book. What a unit's chunk gives depends on nothing else
 * in the pass (its difference is its own, every product is one chain of additions, its support set is seeded by the chunk's number),
 * so neither the cut nor the number of ranks shows in a result, and balance may follow measured speeds. */
#include "eval/ranks.h"
#include "eval/sweep_int.h"

#include <stdlib.h>

/* In chunks: encoding a matrix once more; the least worth a cut. In pieces: how fine a large unit is cut. */
enum { ENCODE_CHUNKS = 2, LEAST_CHUNKS = 8, FINE = 4 };

typedef struct {
    ash_sweep_take take;
    double cost;
    int rank;
} piece;

static double chunk_cost(const ash_sweep_job *j, uint32_t unit) {
    const double layer = ash_sweep_layer_macs(j->m, j->T, 0) * j->T; /* what a table of the head costs, roughly */
    return ASH_MAX(ash_sweep_macs(j->m, j->T, &j->units[unit], 1), layer);
}

static double take_cost(const ash_sweep_job *j, ash_sweep_take t) { return (t.n + (double)ENCODE_CHUNKS) * chunk_cost(j, t.unit); }

static double part_cost(const ash_sweep_job *j, const ash_sweep_part *w) {
    double c = w->probes.n * ash_sweep_probe_macs(j->m, j->T);
    for (uint32_t i = 0; i < w->n_take; i++) c += take_cost(j, w->take[i]);
    return c;
}

/* The costliest first; the order of equals is fixed. */
static int by_cost(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? 1 : -1;
    if (x->take.unit != y->take.unit) return x->take.unit < y->take.unit ? -1 : 1;
    return x->take.at < y->take.at ? -1 : x->take.at > y->take.at;
}

static int by_unit(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    if (x->take.unit != y->take.unit) return x->take.unit < y->take.unit ? -1 : 1;
    return x->take.at < y->take.at ? -1 : x->take.at > y->take.at;
}

static uint32_t cut(const ash_sweep_job *j, const ash_sweep_part *w, int n, piece *p) {
    const double total = part_cost(j, w);
    uint32_t k = 0;
    for (uint32_t i = 0; i < w->n_take; i++) {
        const ash_sweep_take t = w->take[i];
        uint32_t cuts = 1;
        if (j->book.u[t.unit].encoded && total > 0) /* a table's error is over the rows of all its chunks: whole the first time */
            cuts = ASH_MAX(1u, ASH_MIN((uint32_t)(FINE * n * take_cost(j, t) / total), ASH_MIN((uint32_t)n, t.n / LEAST_CHUNKS)));
        for (uint32_t c = 0; c < cuts; c++) {
            const uint32_t a = (uint32_t)((uint64_t)t.n * c / cuts), b = (uint32_t)((uint64_t)t.n * (c + 1) / cuts);
            p[k].take = (ash_sweep_take){t.unit, t.at + a, b - a};
            p[k].cost = take_cost(j, p[k].take);
            k++;
        }
    }
    return k;
}

void ash_sweep_parts_free(ash_sweep_part *parts, int n) {
    for (int r = 0; parts && r < n; r++) ash_free(parts[r].take);
}

ash_status ash_sweep_divide(const ash_sweep_job *j, const ash_sweep_part *w, const double *speed, int n, ash_sweep_part *parts,
                            ash_error *err) {
    ash_status st = ASH_OK;
    double all = 0, before = 0;
    piece *p = ash_calloc((size_t)w->n_take * (size_t)n + 1, sizeof *p);
    double *load = ash_calloc((size_t)n, sizeof *load);
    memset(parts, 0, (size_t)n * sizeof *parts);
    if (!p || !load) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %u units over %d processes", w->n_take, n);
        goto done;
    }
    const uint32_t k = cut(j, w, n, p);
    qsort(p, k, sizeof *p, by_cost);
    for (uint32_t i = 0; i < k; i++) {
        for (int r = 1; r < n; r++)
            if ((load[r] + p[i].cost) / speed[r] < (load[p[i].rank] + p[i].cost) / speed[p[i].rank]) p[i].rank = r;
        load[p[i].rank] += p[i].cost;
    }
    qsort(p, k, sizeof *p, by_unit);
    for (uint32_t i = 0; i < k;) {
        ash_sweep_part *part = &parts[p[i].rank];
        uint32_t m = 0;
        while (i + m < k && p[i + m].rank == p[i].rank) m++;
        part->take = ash_calloc(m, sizeof *part->take);
        if (!part->take) {
            st = ash_fail(err, ASH_E_NOMEM, "out of memory for %u units over %d processes", w->n_take, n);
            goto done;
        }
        for (; part->n_take < m; i++) part->take[part->n_take++] = p[i].take;
    }
    for (int r = 0; r < n; r++) all += speed[r];
    for (int r = 0; r < n; r++) { /* the probes by chunks */
        const uint32_t a = (uint32_t)(w->probes.n * before / all + 0.5),
                       b = r == n - 1 ? w->probes.n : (uint32_t)(w->probes.n * (before + speed[r]) / all + 0.5);
        parts[r].probes = (ash_sweep_take){0, w->probes.at + a, b - a};
        before += speed[r];
    }
    parts[0].controls = w->controls;
done:
    if (st != ASH_OK) ash_sweep_parts_free(parts, n);
    ash_free(p);
    ash_free(load);
    return st;
}

/* ---- what rank 0 tells ---- */

static void write_parts(ash_buf *b, const ash_sweep_part *parts, int n) {
    for (int r = 0; r < n; r++) {
        const ash_sweep_part *w = &parts[r];
        const uint32_t head[5] = {w->n_take, w->probes.at, w->probes.n, w->controls.at, w->controls.n};
        ash_buf_add(b, head, sizeof head);
        if (w->n_take) ash_buf_add(b, w->take, w->n_take * sizeof *w->take);
    }
}

static ash_sweep_take read_take(ash_rd *r, uint32_t unit, uint32_t max_unit, uint32_t max_chunks) {
    ash_sweep_take t = {.unit = unit, .at = ash_rd_u32(r)};
    t.n = ash_rd_u32(r);
    if (t.unit >= max_unit || t.at > max_chunks || t.n > max_chunks - t.at) r->bad = true;
    return t;
}

static ash_status read_parts(const ash_sweep_book *b, ash_rd *r, ash_sweep_part *parts, int n, ash_error *err) {
    memset(parts, 0, (size_t)n * sizeof *parts);
    for (int i = 0; i < n && !r->bad; i++) {
        ash_sweep_part *w = &parts[i];
        const uint32_t k = ash_rd_u32(r);
        w->probes = read_take(r, 0, 1, b->n_probe);
        w->controls = read_take(r, 0, 1, b->max_chunks);
        if (r->bad || k > ash_rd_left(r) / sizeof *w->take) {
            r->bad = true;
            break;
        }
        w->take = ash_calloc(k + 1, sizeof *w->take);
        if (!w->take) {
            ash_sweep_parts_free(parts, n);
            return ash_fail(err, ASH_E_NOMEM, "out of memory for a pass of %u units", k);
        }
        while (w->n_take < k) {
            const uint32_t unit = ash_rd_u32(r);
            w->take[w->n_take++] = read_take(r, unit, b->n_units, b->max_chunks);
        }
    }
    if (!r->bad && ash_rd_left(r) == 0) return ASH_OK;
    ash_sweep_parts_free(parts, n);
    return ash_fail(err, ASH_E_INTERNAL, "process 0 sent a pass that is not possible");
}

/* ---- results: per part its seconds, per unit error and chunks, the probes, the controls; as doubles ---- */
static uint64_t result_doubles(const ash_sweep_part *w) {
    uint64_t n = 1 + (uint64_t)w->probes.n * ASH_SWEEP_PROBES + (w->controls.n ? 2 : 0);
    for (uint32_t i = 0; i < w->n_take; i++) n += 1 + w->take[i].n;
    return n;
}

/* Between a part's places in the book and v, in the direction asked for. */
static void move_results(ash_sweep_book *b, const ash_sweep_part *w, double *v, bool out) {
#define MOVE(place, n) (out ? memcpy(v, place, (n) * sizeof(double)) : memcpy(place, v, (n) * sizeof(double)), v += (n))
    for (uint32_t i = 0; i < w->n_take; i++) {
        ash_sweep_state *u = &b->u[w->take[i].unit];
        double rel_err = u->rel_err;
        MOVE(&rel_err, 1);
        if (!u->encoded) u->rel_err = rel_err;
        MOVE(u->kld + w->take[i].at, w->take[i].n);
    }
    for (int k = 0; k < ASH_SWEEP_PROBES && w->probes.n; k++) MOVE(b->probe + (size_t)k * b->n_probe + w->probes.at, w->probes.n);
    if (w->controls.n) {
        MOVE(&b->identity, 1);
        MOVE(&b->noise, 1);
    }
#undef MOVE
}

/* This rank's part; all results into the book. */
static ash_status do_part(ash_sweep_job *j, const ash_sweep_part *parts, double macs, ash_error *err) {
    const ash_ranks *rk = j->o.ranks;
    const ash_sweep_part *w = &parts[rk->rank];
    const double t0 = ash_now();
    ash_status st = ASH_OK;
    uint64_t total = 0, *sizes = NULL;
    double *mine = NULL, *all = NULL, *v;
    if (w->n_take || w->probes.n || w->controls.n) st = ash_sweep_pass(j, w, macs, err);
    const double seconds = ash_now() - t0;
    if (st == ASH_OK) {
        for (int r = 0; r < rk->n; r++) total += result_doubles(&parts[r]);
        sizes = ash_calloc((size_t)rk->n, sizeof *sizes);
        mine = ash_calloc(result_doubles(w), sizeof *mine);
        all = ash_calloc(total, sizeof *all);
        if (!sizes || !mine || !all) st = ash_fail(err, ASH_E_NOMEM, "out of memory for the results of a pass");
    }
    ASH_TRY_GOTO(ash_ranks_agree(rk, st, err), done);
    for (int r = 0; r < rk->n; r++) sizes[r] = result_doubles(&parts[r]) * sizeof *all;
    mine[0] = seconds;
    move_results(&j->book, w, mine + 1, true);
    ASH_TRY_GOTO(rk->gather(rk->ctx, mine, sizes, all, err), done);
    v = all;
    for (int r = 0; r < rk->n; v += result_doubles(&parts[r]), r++) {
        const double cost = part_cost(j, &parts[r]);
        if (j->speed && cost > 0 && v[0] > 0) j->speed[r] = cost / v[0];
        move_results(&j->book, &parts[r], v + 1, false);
    }
    for (int r = 0; r < rk->n; r++) ash_sweep_advance(&j->book, &parts[r]);
done:
    ash_free(sizes);
    ash_free(mine);
    ash_free(all);
    return st;
}

static double round_macs(const ash_sweep_job *j, const ash_sweep_part *w) {
    return w->n_take ? ash_sweep_take_macs(j, w->take, w->n_take) : ash_sweep_probe_macs(j->m, j->T) * w->probes.n;
}

/* A rank nobody has timed yet counts as the average one. */
static ash_status known_speeds(ash_sweep_job *j, int n, double *speed, ash_error *err) {
    double sum = 0;
    int known = 0;
    if (!j->speed) j->speed = ash_calloc((size_t)n, sizeof *j->speed);
    if (!j->speed) return ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", n);
    for (int r = 0; r < n; r++)
        if (j->speed[r] > 0) sum += j->speed[r], known++;
    for (int r = 0; r < n; r++) speed[r] = j->speed[r] > 0 ? j->speed[r] : known ? sum / known : 1;
    return ASH_OK;
}

ash_status ash_sweep_round(ash_sweep_job *j, const ash_sweep_part *w, ash_error *err) {
    const int n = ash_ranks_n(j->o.ranks);
    const double macs = round_macs(j, w);
    if (n == 1) {
        ASH_TRY(ash_sweep_pass(j, w, macs, err));
        ash_sweep_advance(&j->book, w);
        return ASH_OK;
    }
    ash_status st = ASH_OK;
    ash_buf b = {0};
    ash_sweep_part *parts = ash_calloc((size_t)n, sizeof *parts);
    double *speed = ash_calloc((size_t)n, sizeof *speed);
    if (!parts || !speed) {
        st = ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", n);
        goto done;
    }
    ASH_TRY_GOTO(known_speeds(j, n, speed, err), done);
    ASH_TRY_GOTO(ash_sweep_divide(j, w, speed, n, parts, err), done);
    write_parts(&b, parts, n);
    ASH_TRY_GOTO(ash_ranks_agree(j->o.ranks, ash_buf_ok(&b) ? ASH_OK : ash_fail(err, ASH_E_NOMEM, "out of memory for a pass"), err), done);
    ASH_TRY_GOTO(ash_ranks_share(j->o.ranks, &b, err), done);
    st = do_part(j, parts, macs, err);
done:
    ash_sweep_parts_free(parts, n);
    ash_free(parts);
    ash_free(speed);
    ash_buf_free(&b);
    return st;
}

ash_status ash_sweep_over(ash_sweep_job *j, ash_status st, ash_error *err) {
    ash_buf none = {0};
    ASH_TRY(ash_ranks_agree(j->o.ranks, st, err));
    return ash_ranks_share(j->o.ranks, &none, err);
}

ash_status ash_sweep_follow(ash_sweep_job *j, bool *over, ash_error *err) {
    const int n = ash_ranks_n(j->o.ranks);
    ash_status st = ASH_OK;
    ash_buf b = {0};
    ash_sweep_part *parts = ash_calloc((size_t)n, sizeof *parts);
    *over = false;
    if (!parts) st = ash_fail(err, ASH_E_NOMEM, "out of memory for %d processes", n);
    ASH_TRY_GOTO(ash_ranks_agree(j->o.ranks, st, err), done);
    ASH_TRY_GOTO(ash_ranks_share(j->o.ranks, &b, err), done);
    *over = b.n == 0;
    if (*over) goto done;
    ash_rd r = ash_rd_init(b.p, b.n);
    ASH_TRY_GOTO(read_parts(&j->book, &r, parts, n, err), done);
    const double macs = round_macs(j, &parts[j->o.ranks->rank]);
    j->work_total = j->work_done + macs;
    st = do_part(j, parts, macs, err);
    ash_sweep_parts_free(parts, n);
    if (st != ASH_OK) st = ash_ranks_agree(j->o.ranks, st, err); /* rank 0 knows, and comes to ash_sweep_over */
done:
    ash_free(parts);
    ash_buf_free(&b);
    return st;
}
