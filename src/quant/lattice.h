/* lattice.h - the codebooks of the IQ1, IQ2 and IQ3 types, arranged for exact nearest-point search.
 *
 * A point has k weights (8 or 4), each one of nv values. With an error that is a sum over weights, the cost of a point is the cost of
 * its lower half plus that of its upper half, and there are few different halves (nv^(k/2): 81 or 64). So the points are sorted by
 * upper half and taken in fours that share one (the last four of an upper half filled up by repeating a point): a search makes the two
 * tables of half costs and then needs, without a branch, one load and one comparison per point and an addition per four. */
#ifndef ASH_LATTICE_H
#define ASH_LATTICE_H

#include <stdint.h>

typedef enum { LAT_IQ2_XXS, LAT_IQ2_XS, LAT_IQ2_S, LAT_IQ3_XXS, LAT_IQ3_S, LAT_IQ1, LAT_COUNT } lat_kind;

enum { LAT_MAX_HALVES = 81, LAT_MAX_FOURS = 2048 / 4 + LAT_MAX_HALVES, LAT_MAX_VALUES = 8 };

typedef struct { uint16_t hi, lo[4]; } lat_four; /* halves, times 64: byte offsets into tables of 16 floats each */

typedef struct {
    int k, nv, n_half;            /* weights per point, values per weight, possible halves */
    float v[LAT_MAX_VALUES];      /* ascending, such that x = d * (2 sub-scale + 1) * v */
    int n_fours;
    lat_four four[LAT_MAX_FOURS]; /* digit j (base nv) of a half is the value index of its weight j */
    uint16_t id[4 * LAT_MAX_FOURS]; /* the format's index of the point */
} lattice;

/* Built on first use, thread-safe. */
const lattice *ash_lattice(lat_kind k);

#endif
