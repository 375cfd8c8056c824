/* sign of a real map: words of channels for XOR, or planes of +-1 bytes for sums. sign(0) = sign(-0) = +1. */
#include "plan.h"

#include <string.h>

#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

typedef struct {
    float centre, scale, bias;
} affine;

/* What is done to a channel before its sign is taken. */
static affine affine_of(const operation *o, int channel) {
    if (!o->scale) return (affine){0.0f, 1.0f, 0.0f};
    return (affine){o->centre ? o->centre[channel] : 0.0f, o->scale[channel], o->bias[channel]};
}

#if defined(__AVX512BW__)
/* Which of sixteen entries are positive or zero. */
static inline __mmask16 not_negative(const float *x, const affine *f) {
    const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x), _mm512_set1_ps(f->centre)), _mm512_set1_ps(f->scale));
    return _mm512_cmp_ps_mask(_mm512_add_ps(v, _mm512_set1_ps(f->bias)), _mm512_setzero_ps(), _CMP_GE_OQ);
}
#endif

/* The bit of each entry, or'ed into bits[x] at its place. */
static void add_bit(const float *x, int n, const affine *f, uint8_t bit, uint8_t *bits) {
    int i = 0;
#if defined(__AVX512BW__)
    const __m128i one = _mm_set1_epi8((char)bit);
    for (; i + 16 <= n; i += 16) {
        __m128i *to = (__m128i *)(bits + i);
        const __m128i mine = _mm_maskz_mov_epi8(not_negative(x + i, f), one);
        _mm_storeu_si128(to, _mm_or_si128(_mm_loadu_si128(to), mine));
    }
#endif
    for (; i < n; i++) bits[i] |= (x[i] - f->centre) * f->scale + f->bias >= 0.0f ? bit : 0;
}

/* +1 or -1 for each entry. */
static void put_signs(const float *x, int n, const affine *f, int8_t *signs) {
    int i = 0;
#if defined(__AVX512BW__)
    for (; i + 16 <= n; i += 16) {
        const __m128i both = _mm_mask_blend_epi8(not_negative(x + i, f), _mm_set1_epi8(-1), _mm_set1_epi8(1));
        _mm_storeu_si128((__m128i *)(signs + i), both);
    }
#endif
    for (; i < n; i++) signs[i] = (x[i] - f->centre) * f->scale + f->bias >= 0.0f ? 1 : -1;
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
                    const affine f = affine_of(o, c + j);
                    const float *from = (const float *)in->data + (size_t)(c + j) * plane_size(in);
                    add_bit(from + (size_t)y * in->width + x, part, &f, (uint8_t)(1u << j), bits);
                }
                put_bits(out, c, live, (size_t)y * row_pitch(out) + x, bits, part);
            }
    }
}

static void sign_planes(const operation *o) {
    const value *in = o->in, *out = o->out;
    clear_value(out);
    for (int c = 0; c < in->channels; c++) {
        const affine f = affine_of(o, c);
        for (int y = 0; y < in->height; y++) {
            const float *x = (const float *)in->data + (size_t)c * plane_size(in) + (size_t)y * in->width;
            put_signs(x, in->width, &f, (int8_t *)out->data + inside(out, c) + (size_t)y * row_pitch(out));
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
