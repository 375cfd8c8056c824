/* sign of a real map: words of channels for XOR, or planes of +-1 bytes for sums. sign(0) = sign(-0) = +1. */
#include "plan.h"

#include <string.h>

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

/* The bit of each entry, or'ed into bits[x] at its place. */
static void add_bit(const float *x, int n, float a, float b, uint8_t bit, uint8_t *bits) {
    int i = 0;
#if defined(__AVX512BW__)
    const __m512 scale = _mm512_set1_ps(a), shift = _mm512_set1_ps(b), zero = _mm512_setzero_ps();
    for (; i + 64 <= n; i += 64) {
        uint64_t mask = 0;
        for (int k = 0; k < 4; k++) {
            const __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16 * k), scale), shift);
            mask |= (uint64_t)_mm512_cmp_ps_mask(v, zero, _CMP_GE_OQ) << (16 * k);
        }
        const __m512i old = _mm512_loadu_si512(bits + i), one = _mm512_set1_epi8((char)bit);
        _mm512_storeu_si512(bits + i, _mm512_or_si512(old, _mm512_maskz_mov_epi8(mask, one)));
    }
#endif
    for (; i < n; i++) bits[i] |= x[i] * a + b >= 0.0f ? bit : 0;
}

static void sign_words(const operation *o) {
    const value *in = o->in, *out = o->out;
    uint8_t bits[TILE];
    const int whole = out->border == 0, n = whole ? plane_size(in) : in->width;
    clear_value(out);
    for (int c = 0; c < in->channels; c += BLOCK) {
        const int live = in->channels - c < BLOCK ? in->channels - c : BLOCK;
        for (int y = 0; y < (whole ? 1 : in->height); y++)
            for (int x = 0; x < n; x += TILE) {
                const int part = n - x < TILE ? n - x : TILE;
                memset(bits, 0, (size_t)part);
                for (int j = 0; j < live; j++) {
                    const float a = o->scale ? o->scale[c + j] : 1.0f, b = o->scale ? o->bias[c + j] : 0.0f;
                    const float *from = (const float *)in->data + (size_t)(c + j) * plane_size(in);
                    add_bit(from + (size_t)y * in->width + x, part, a, b, (uint8_t)(1u << j), bits);
                }
                put_bits(out, c, live, (size_t)y * row_pitch(out) + x, bits, part);
            }
    }
}

static void sign_planes(const operation *o) {
    const value *in = o->in, *out = o->out;
    clear_value(out);
    for (int c = 0; c < in->channels; c++) {
        const float a = o->scale ? o->scale[c] : 1.0f, b = o->scale ? o->bias[c] : 0.0f;
        for (int y = 0; y < in->height; y++) {
            const float *x = (const float *)in->data + (size_t)c * plane_size(in) + (size_t)y * in->width;
            int8_t *to = (int8_t *)out->data + inside(out, c) + (size_t)y * row_pitch(out);
            for (int i = 0; i < in->width; i++) to[i] = x[i] * a + b >= 0.0f ? 1 : -1;
        }
    }
}

void run_sign(packed_plan *plan, const operation *o) {
    (void)plan;
    if (o->out->kind == WORDS)
        sign_words(o);
    else
        sign_planes(o);
}
