/* Float convolutions: the stem, the shortcuts, the classifier, and 1-bit weights on real maps as +-1.
 *
 * Every output is one sum, its terms in the order of input channel, row and column of the filter, without fused
 * multiply-adds: all instruction sets compute the same bits. */
#include "plan.h"

#include <string.h>

typedef float floats16 __attribute__((vector_size(64), aligned(4)));
#define LANES 16

static int is_flat(const operation *o) { return o->kernel == 1 && !o->copied; }

/* A weight of the file: a float, or a bit of a filter's words that stands for +-1. */
static float weight_at(const operation *o, const void *source, int channel, int term) {
    if (!o->row[OFFSET]) return ((const float *)source)[(size_t)channel * o->terms + term];
    const uint64_t *words = (const uint64_t *)source + (size_t)channel * ((o->terms + 63) / 64);
    return words[term / 64] >> (term % 64) & 1 ? 1.0f : -1.0f;
}

int prepare_real(packed_plan *plan, operation *o, const void *weights) {
    const value *in = o->in;
    const int taps = o->kernel * o->kernel, s = o->stride, blocks = (o->out_channels + BLOCK - 1) / BLOCK;
    o->terms = o->in_channels * taps;
    o->copied = o->padding > 0 || s > 1;
    o->pitch = o->copied ? s * padded_pitch(in->width, o->padding, s) : in->width;
    o->plane = o->copied ? o->pitch * (in->height + 2 * o->padding) : plane_size(in);
    o->offsets = plan_memory(plan, sizeof(int32_t) * (size_t)o->terms);
    float *to = o->weights = plan_memory(plan, sizeof(float) * (size_t)(o->groups * blocks * o->terms * BLOCK));
    if (!o->offsets || !to) return -1;
    for (int i = 0; i < o->terms; i++) {
        const int y = i % taps / o->kernel * o->dilation, x = i % o->kernel * o->dilation;
        o->offsets[i] = i / taps * o->plane + y * o->pitch + x % s * (o->pitch / s) + x / s;
    }
    for (int g = 0; g < o->groups; g++)
        for (int c = 0; c < o->out_channels; c++)
            for (int i = 0; i < o->terms; i++)
                to[((size_t)(g * blocks + c / BLOCK) * o->terms + i) * BLOCK + c % BLOCK] =
                    weight_at(o, weights, g * o->out_channels + c, i);
    const size_t copy = o->copied ? sizeof(float) * (size_t)o->plane * o->in_channels + SLACK : 0;
    if (copy > plan->scratch_bytes) plan->scratch_bytes = copy;
    const size_t tile = sizeof(float) * BLOCK * (size_t)(round_up(o->out->width, TILE) + LANES);
    if (tile > plan->tile_bytes) plan->tile_bytes = tile;
    return 0;
}

/* Eight channels of a run of outputs; up to 15 beyond n are written. */
static void multiply_block(const float *source, const int32_t *offsets, int terms, const float *weights, int n,
                           float *sums, int pitch) {
    for (int x = 0; x < n; x += LANES) {
        floats16 sum[BLOCK] = {{0}};
        for (int i = 0; i < terms; i++) {
            const floats16 v = *(const floats16 *)(source + offsets[i] + x);
            for (int j = 0; j < BLOCK; j++) sum[j] += v * weights[BLOCK * i + j];
        }
        for (int j = 0; j < BLOCK; j++) *(floats16 *)(sums + j * pitch + x) = sum[j];
    }
}

/* As multiply_block for groups of one output channel. */
static void multiply_one(const float *source, const int32_t *offsets, int terms, const float *weights, int n,
                         float *sums) {
    for (int x = 0; x < n; x += LANES) {
        floats16 sum = {0};
        for (int i = 0; i < terms; i++) sum += *(const floats16 *)(source + offsets[i] + x) * weights[BLOCK * i];
        *(floats16 *)(sums + x) = sum;
    }
}

static void emit_row(const operation *o, int channel, const float *sums, size_t at, int n) {
    float *y = (float *)o->out->data + (size_t)channel * plane_size(o->out) + at;
    const float *addend =
        o->addend ? (const float *)o->addend->data + (size_t)channel * plane_size(o->out) + at : NULL;
    const float beta = o->beta ? o->beta[channel] : 1.0f;
    for (int x = 0; x < n; x++) y[x] = sums[x] * beta;
    finish_row(o, channel, y, addend, n);
}

static const float *group_source(packed_plan *plan, const operation *o, int group) {
    const value *in = o->in;
    const float *planes = (const float *)in->data + (size_t)group * o->in_channels * plane_size(in);
    if (!o->copied) return planes;
    for (int c = 0; c < o->in_channels; c++)
        pad_plane(plan->scratch + sizeof(float) * (size_t)c * o->plane, (const char *)(planes + (size_t)c * plane_size(in)),
                  sizeof(float), in->height, in->width, in->width, o->padding, o->stride, NULL);
    return (const float *)plan->scratch;
}

void run_real(packed_plan *plan, const operation *o) {
    const value *out = o->out;
    const float *weights = o->weights;
    float *sums = (float *)plan->tile;
    const int flat = is_flat(o), height = flat ? 1 : out->height, width = flat ? plane_size(out) : out->width;
    const int longest = flat && width > TILE ? TILE : width, pitch = round_up(longest, LANES) + LANES;
    for (int g = 0; g < o->groups; g++) {
        const float *source = group_source(plan, o, g);
        for (int c = 0; c < o->out_channels; c += BLOCK, weights += (size_t)o->terms * BLOCK) {
            const int live = o->out_channels - c < BLOCK ? o->out_channels - c : BLOCK;
            for (int y = 0; y < height; y++)
                for (int x = 0; x < width; x += longest) {
                    const int n = width - x < longest ? width - x : longest;
                    const float *at = source + (size_t)y * o->stride * o->pitch + x;
                    if (live == 1)
                        multiply_one(at, o->offsets, o->terms, weights, n, sums);
                    else
                        multiply_block(at, o->offsets, o->terms, weights, n, sums, pitch);
                    for (int j = 0; j < live; j++)
                        emit_row(o, g * o->out_channels + c + j, sums + j * pitch, (size_t)y * width + x, n);
                }
        }
    }
}

/* The global average in double, rounded once: what search/exact.py computes. */
void run_mean(packed_plan *plan, const operation *o) {
    (void)plan;
    const int n = plane_size(o->in);
    for (int c = 0; c < o->in->channels; c++) {
        const float *x = (const float *)o->in->data + (size_t)c * n;
        double lanes[LANES] = {0}, sum = 0.0;
        for (int i = 0; i < n; i++) lanes[i % LANES] += (double)x[i];
        for (int i = 0; i < LANES; i++) sum += lanes[i];
        ((float *)o->out->data)[c] = (float)(sum / (double)n);
    }
}
