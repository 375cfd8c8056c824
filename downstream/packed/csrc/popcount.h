#ifndef POPCOUNT_H
#define POPCOUNT_H

#include <stdint.h>

/* counts[j * pitch + x] = sum over i < terms of popcount(source[offsets[i] + x] ^ weights[8 i + j]), for j < 8 and
 * x < n; up to 7 entries beyond n are written, and source is read as far. Sums stay below 65536. */
void count_block(const uint64_t *source, const int32_t *offsets, int terms, const uint64_t *weights, int n,
                 uint16_t *counts, int pitch);

#endif
