/* i8_words.h - the lattice tables as 16-bit words, for levels that search tables held in registers. A word holds
 * the index of each weight's level in one of the level lists: 2 bits for 8 weights, 4 bits for 4. Weight j is at bit
 * 8 (j%2) + 2 (j/2), or 8 (j%2) + 4 (j/2). Filled once, before any kernel table is handed out. */
#ifndef ASH_KERN_I8_WORDS_H
#define ASH_KERN_I8_WORDS_H

#include <stdint.h>

#define ASH_I8_LEVELS_IQ2 {8, 25, 43}
#define ASH_I8_LEVELS_IQ3XXS {4, 12, 20, 28, 36, 44, 52, 62}
#define ASH_I8_LEVELS_IQ3S {1, 3, 5, 7, 9, 11, 13, 15}

typedef struct {
    _Alignas(64) uint16_t iq2xxs[256], iq2xs[512], iq2s[1024];
    uint16_t iq1[2048]; /* levels -1, 0, 1 */
    uint16_t iq3xxs[256], iq3s[512];
} ash_i8_word_tables;
extern ash_i8_word_tables ash_i8_words;
void ash_i8_words_init(void);

#endif
