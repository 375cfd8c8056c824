/* Disagreeing bits of eight filters along a row of pixels, for each instruction set. */
#include "popcount.h"

#if defined(__AVX512VPOPCNTDQ__)
#include <immintrin.h>

void count_block(const uint64_t *source, const int32_t *offsets, int terms, const uint64_t *weights, int n,
                 uint16_t *counts, int pitch) {
    for (int x = 0; x < n; x += 8) {
        __m512i sum[8];
        for (int j = 0; j < 8; j++) sum[j] = _mm512_setzero_si512();
        for (int i = 0; i < terms; i++) {
            const __m512i bits = _mm512_loadu_si512(source + offsets[i] + x);
            const uint64_t *w = weights + 8 * i;
            for (int j = 0; j < 8; j++) {
                const __m512i other = _mm512_set1_epi64((long long)w[j]);
                sum[j] = _mm512_add_epi64(sum[j], _mm512_popcnt_epi64(_mm512_xor_si512(bits, other)));
            }
        }
        for (int j = 0; j < 8; j++)
            _mm_storeu_si128((__m128i *)(counts + j * pitch + x), _mm512_cvtepi64_epi16(sum[j]));
    }
}

#elif defined(__AVX2__)
#include <immintrin.h>

/* Bits of every byte by a table of nibbles; 31 words of at most 8 a byte fit into a byte before they are added up. */
void count_block(const uint64_t *source, const int32_t *offsets, int terms, const uint64_t *weights, int n,
                 uint16_t *counts, int pitch) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    for (int x = 0; x < n; x += 4) {
        for (int half = 0; half < 8; half += 4) {
            __m256i sum[4] = {zero, zero, zero, zero};
            for (int start = 0; start < terms; start += 31) {
                const int end = start + 31 < terms ? start + 31 : terms;
                __m256i bytes[4] = {zero, zero, zero, zero};
                for (int i = start; i < end; i++) {
                    const __m256i bits = _mm256_loadu_si256((const __m256i *)(source + offsets[i] + x));
                    const uint64_t *w = weights + 8 * i + half;
                    for (int j = 0; j < 4; j++) {
                        const __m256i v = _mm256_xor_si256(bits, _mm256_set1_epi64x((long long)w[j]));
                        const __m256i a = _mm256_shuffle_epi8(table, _mm256_and_si256(v, low));
                        const __m256i b =
                            _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low));
                        bytes[j] = _mm256_add_epi8(bytes[j], _mm256_add_epi8(a, b));
                    }
                }
                for (int j = 0; j < 4; j++) sum[j] = _mm256_add_epi64(sum[j], _mm256_sad_epu8(bytes[j], zero));
            }
            for (int j = 0; j < 4; j++) {
                const __m128i a = _mm256_castsi256_si128(sum[j]), b = _mm256_extracti128_si256(sum[j], 1);
                const __m128i packed = _mm_shuffle_epi8(_mm_packus_epi32(a, b), order);
                _mm_storel_epi64((__m128i *)(counts + (half + j) * pitch + x), packed);
            }
        }
    }
}

#elif defined(__ARM_NEON)
#include <arm_neon.h>

void count_block(const uint64_t *source, const int32_t *offsets, int terms, const uint64_t *weights, int n,
                 uint16_t *counts, int pitch) {
    for (int x = 0; x < n; x += 2) {
        uint64x2_t sum[8];
        for (int j = 0; j < 8; j++) sum[j] = vdupq_n_u64(0);
        for (int start = 0; start < terms; start += 31) {
            const int end = start + 31 < terms ? start + 31 : terms;
            uint8x16_t bytes[8];
            for (int j = 0; j < 8; j++) bytes[j] = vdupq_n_u8(0);
            for (int i = start; i < end; i++) {
                const uint64x2_t bits = vld1q_u64(source + offsets[i] + x);
                const uint64_t *w = weights + 8 * i;
                for (int j = 0; j < 8; j++) {
                    const uint64x2_t v = veorq_u64(bits, vdupq_n_u64(w[j]));
                    bytes[j] = vaddq_u8(bytes[j], vcntq_u8(vreinterpretq_u8_u64(v)));
                }
            }
            for (int j = 0; j < 8; j++)
                sum[j] = vaddq_u64(sum[j], vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes[j]))));
        }
        for (int j = 0; j < 8; j++) {
            counts[j * pitch + x] = (uint16_t)vgetq_lane_u64(sum[j], 0);
            counts[j * pitch + x + 1] = (uint16_t)vgetq_lane_u64(sum[j], 1);
        }
    }
}

#else

/* Bits of every byte by adding pairs, then nibbles; the bytes are added up after 31 words. */
static inline uint64_t byte_counts(uint64_t v) {
    v -= (v >> 1) & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + ((v >> 2) & 0x3333333333333333u);
    return (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
}

static inline uint64_t sum_of_bytes(uint64_t v) {
    v = (v & 0x00ff00ff00ff00ffu) + ((v >> 8) & 0x00ff00ff00ff00ffu);
    return (v * 0x0001000100010001u) >> 48;
}

void count_block(const uint64_t *source, const int32_t *offsets, int terms, const uint64_t *weights, int n,
                 uint16_t *counts, int pitch) {
    for (int x = 0; x < n; x++) {
        uint64_t sum[8] = {0};
        for (int start = 0; start < terms; start += 31) {
            const int end = start + 31 < terms ? start + 31 : terms;
            uint64_t bytes[8] = {0};
            for (int i = start; i < end; i++) {
                const uint64_t bits = source[offsets[i] + x];
                for (int j = 0; j < 8; j++) bytes[j] += byte_counts(bits ^ weights[8 * i + j]);
            }
            for (int j = 0; j < 8; j++) sum[j] += sum_of_bytes(bytes[j]);
        }
        for (int j = 0; j < 8; j++) counts[j * pitch + x] = (uint16_t)sum[j];
    }
}

#endif
