/* i8_words.c - makes the word tables of i8_words.h from the lattices of tensor/codebooks.h. */
#include "kern/i8_words.h"

#include "tensor/codebooks.h"

ash_i8_word_tables ash_i8_words;

static uint32_t level_of(uint32_t byte, const uint8_t *levels, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (levels[i] == byte) return i;
    return 0; /* not reached: the lattices hold no other level */
}

/* n_w weights of `bits` bits in a word */
static uint16_t word(uint64_t entry, int n_w, int bits, const uint8_t *levels, uint32_t n_levels) {
    uint32_t w = 0;
    for (int j = 0; j < n_w; j++) w |= level_of((uint32_t)(entry >> 8 * j & 255), levels, n_levels) << (8 * (j % 2) + bits * (j / 2));
    return (uint16_t)w;
}

void ash_i8_words_init(void) {
    static const uint8_t iq2[] = ASH_I8_LEVELS_IQ2, iq3xxs[] = ASH_I8_LEVELS_IQ3XXS, iq3s[] = ASH_I8_LEVELS_IQ3S, iq1[] = {255, 0, 1};
    ash_i8_word_tables *t = &ash_i8_words;
    for (int i = 0; i < 256; i++) t->iq2xxs[i] = word(ash_iq2xxs_grid[i], 8, 2, iq2, 3);
    for (int i = 0; i < 512; i++) t->iq2xs[i] = word(ash_iq2xs_grid[i], 8, 2, iq2, 3);
    for (int i = 0; i < 1024; i++) t->iq2s[i] = word(ash_iq2s_grid[i], 8, 2, iq2, 3);
    for (int i = 0; i < 2048; i++) t->iq1[i] = word(ash_iq1_grid[i], 8, 2, iq1, 3);
    for (int i = 0; i < 256; i++) t->iq3xxs[i] = word(ash_iq3xxs_grid[i], 4, 4, iq3xxs, 8);
    for (int i = 0; i < 512; i++) t->iq3s[i] = word(ash_iq3s_grid[i], 4, 4, iq3s, 8);
}
