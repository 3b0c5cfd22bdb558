/* lattice.h - the codebooks of the IQ1, IQ2 and IQ3 types, arranged for exact nearest-point search.
 *
 * A point has k weights (8 or 4), each one of nv values. With an error that is a sum over weights, the cost of a point is the cost of
 * its lower half plus that of its upper half, and there are few different halves (nv^(k/2): 81 or 64). So the points are sorted by
 * upper half into runs: a search makes the two tables of half costs and then needs one addition and one comparison per point. */
#ifndef ASH_LATTICE_H
#define ASH_LATTICE_H

#include <stdint.h>

typedef enum { LAT_IQ2_XXS, LAT_IQ2_XS, LAT_IQ2_S, LAT_IQ3_XXS, LAT_IQ3_S, LAT_IQ1, LAT_COUNT } lat_kind;

enum { LAT_MAX_HALVES = 81, LAT_MAX_POINTS = 2048, LAT_MAX_VALUES = 8 };

typedef struct {
    int k, nv, n_half;       /* weights per point, values per weight, possible halves */
    float v[LAT_MAX_VALUES]; /* ascending, such that x = d * (2 sub-scale + 1) * v */
    int n_runs;
    uint8_t run_hi[LAT_MAX_HALVES]; /* upper half of a run: digit j (base nv) is the value index of weight k/2 + j */
    uint16_t run_end[LAT_MAX_HALVES];
    uint8_t lo[LAT_MAX_POINTS];  /* lower half, likewise */
    uint16_t id[LAT_MAX_POINTS]; /* the format's index of the point */
} lattice;

/* Built on first use, thread-safe. */
const lattice *ash_lattice(lat_kind k);

#endif
