/* Sums of floats: gradients, tangents and real-valued layers; every sum in the fixed order of lanes.h.
 *
 * Weights come as floats (+-beta in a 1-bit layer: multiplying by them is exact up to beta's own rounding). A batch
 * norm's derivative is written as d = slope (g - a - (v - mean) b) with a, b from two sums; v is what it normalised.
 */

#include "geometry.h"
#include "norms.h"

/* A map of floats, bytes or shorts, (N, C, pixels). */
enum { FLOATS, BYTES, SHORTS };

/* How sign passes a gradient, see search.binary.estimate; PLAIN passes it whole. */
enum { PLAIN, CLIPPED, BIREAL };

static inline void widen(const void *x, int kind, long at, long count, float *out) {
    if (kind == FLOATS) memcpy(out, (const float *)x + at, 4 * count);
    else if (kind == BYTES) for (long i = 0; i < count; i++) out[i] = ((const int8_t *)x)[at + i];
    else for (long i = 0; i < count; i++) out[i] = ((const int16_t *)x)[at + i];
}

static inline void pass_estimate(float *g, const float *x, long count, int estimator, float window) {
    if (estimator == CLIPPED) for (long i = 0; i < count; i++) g[i] = fabsf(window == 1 ? x[i] : x[i] / window) <= 1 ? g[i] : 0;
    else if (estimator == BIREAL) for (long i = 0; i < count; i++) {
        float factor = 1 - fabsf(window == 1 ? x[i] : x[i] / window);
        g[i] = 2 * (factor > 0 ? factor : 0) * g[i];
    }
}

/* out = g through sign at x; out may be g. */
EXPORT void estimate_gradient(const float *g, const float *x, long count, int estimator, float window, float *out) {
    enum { PART = 4096 };
    for (long at = 0; at < count; at += PART) {
        long length = minimum(PART, count - at);
        if (out != g) memcpy(out + at, g + at, 4 * length);
        pass_estimate(out + at, x + at, length, estimator, window);
    }
}

/* ---- sums over a batch norm's channel */

struct channel_sums {
    const float *g;
    const void *v;
    int kind, images, channels;
    long pixels;
    const double *stats;
    double *out;
};

static void sum_channel(long c, void *context) {
    struct channel_sums *s = context;
    float mean = (float)s->stats[c * STAT + MEAN], v[1024], lane[2][LANES];
    double sum = 0, product = 0;
    for (int n = 0; n < s->images; n++) {
        long at = ((long)n * s->channels + c) * s->pixels;
        memset(lane, 0, sizeof lane);
        for (long start = 0; start < s->pixels; start += 1024) {
            long count = minimum(1024, s->pixels - start), i = 0;
            const float *g = s->g + at + start;
            widen(s->v, s->kind, at + start, count, v);
            vf a[PARTS], b[PARTS];
            for (int p = 0; p < PARTS; p++) a[p] = load(lane[0] + p * VW), b[p] = load(lane[1] + p * VW);
            for (; i + LANES <= count; i += LANES)
                for (int p = 0; p < PARTS; p++) {
                    vf x = load(g + i + p * VW);
                    a[p] += x;
                    b[p] += x * (load(v + i + p * VW) - mean);
                }
            for (int p = 0; p < PARTS; p++) store(lane[0] + p * VW, a[p]), store(lane[1] + p * VW, b[p]);
            for (int l = 0; i < count; i++, l++) {
                lane[0][l] += g[i];
                lane[1][l] += g[i] * (v[i] - mean);
            }
        }
        sum += tree_of_floats(lane[0]);
        product += tree_of_floats(lane[1]);
    }
    s->out[2 * c] = sum;
    s->out[2 * c + 1] = product;
}

/* out (C, 2): sums of g and of g (v - mean) over images and pixels; g float32, v of any kind, (N, C, pixels). */
EXPORT void norm_sums(const float *g, const void *v, int kind, int images, int channels, long pixels, const double *stats,
                      double *out, int threads) {
    struct channel_sums s = {g, v, kind, images, channels, pixels, stats, out};
    in_parallel(channels, threads, sum_channel, &s);
}

struct moments {
    const float *x;
    int images, channels;
    long pixels;
    double *out;
};

static void moments_channel(long c, void *context) {
    struct moments *m = context;
    double total[2] = {0, 0};
    for (int n = 0; n < m->images; n++) {
        const float *x = m->x + ((long)n * m->channels + c) * m->pixels;
        double first[LANES] = {0}, second[LANES] = {0};
        long i = 0;
        for (; i + LANES <= m->pixels; i += LANES)
            for (int l = 0; l < LANES; l++) {
                double value = x[i + l];
                first[l] += value, second[l] += value * value;
            }
        for (int l = 0; i < m->pixels; i++, l++) {
            double value = x[i];
            first[l] += value, second[l] += value * value;
        }
        total[0] += tree(first), total[1] += tree(second);
    }
    m->out[2 * c] = total[0], m->out[2 * c + 1] = total[1];
}

/* out (C, 2): sums of x and of x^2 in float64, x (N, C, pixels). */
EXPORT void float_moments(const float *x, int images, int channels, long pixels, double *out, int threads) {
    struct moments m = {x, images, channels, pixels, out};
    in_parallel(channels, threads, moments_channel, &m);
}

/* out = slope (g - a - (v - mean) b): a norm's derivative applied, as a tangent passes it. */
EXPORT void norm_apply(const float *g, const void *v, int kind, const struct derivative *derivative, long planes,
                       int channels, long pixels, float *out) {
    float wide[1024];
    for (long k = 0; k < planes; k++) {
        struct derivative d = derivative[k % channels];
        for (long start = 0; start < pixels; start += 1024) {
            long count = minimum(1024, pixels - start), at = k * pixels + start;
            widen(v, kind, at, count, wide);
            for (long i = 0; i < count; i++) out[at + i] = d.slope * (g[at + i] - d.a - (wide[i] - d.mean) * d.b);
        }
    }
}

/* ---- small matrix products over tiles of pixels */

#define PIXELS 128

#if VW == 16
enum { ROWS = 4, VECTORS = 4, OUTER_ROWS = 4, OUTER_COLUMNS = 4, TAPS = 4 };
#else
enum { ROWS = 4, VECTORS = 2, OUTER_ROWS = 2, OUTER_COLUMNS = 2, TAPS = 2 };
#endif

/* y[r] = sum over k of w[r * by_row + k * by_column] x[k], in order of k; rows of PIXELS floats. */
static void product(const float *w, long by_row, long by_column, int rows, int inner, const float *x, float *y) {
    int r = 0;
    for (; r + ROWS <= rows; r += ROWS)
        for (long q = 0; q < PIXELS; q += VW * VECTORS) {
            vf s[ROWS][VECTORS] = {{{0}}};
            for (int k = 0; k < inner; k++) {
                const float *from = x + (long)k * PIXELS + q, *u = w + r * by_row + k * by_column;
                vf v[VECTORS];
                for (int j = 0; j < VECTORS; j++) v[j] = load(from + j * VW);
                for (int i = 0; i < ROWS; i++) {
                    vf factor = spread(u[i * by_row]);
                    for (int j = 0; j < VECTORS; j++) s[i][j] += factor * v[j];
                }
            }
            for (int i = 0; i < ROWS; i++)
                for (int j = 0; j < VECTORS; j++) store(y + (long)(r + i) * PIXELS + q + j * VW, s[i][j]);
        }
    for (; r < rows; r++)
        for (long q = 0; q < PIXELS; q += VW) {
            vf s = {0};
            for (int k = 0; k < inner; k++)
                s += spread(w[r * by_row + k * by_column]) * load(x + (long)k * PIXELS + q);
            store(y + (long)r * PIXELS + q, s);
        }
}

static inline void outer_block(const float *g, const float *x, long columns, float *lanes, const int rows, const int wide) {
    vf s[OUTER_ROWS][OUTER_COLUMNS][PARTS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < wide; j++)
            for (int p = 0; p < PARTS; p++) s[i][j][p] = load(lanes + (i * columns + j) * LANES + p * VW);
    for (long q = 0; q < PIXELS; q += LANES)
        for (int p = 0; p < PARTS; p++) {
            vf u[OUTER_ROWS], v[OUTER_COLUMNS];
            for (int i = 0; i < rows; i++) u[i] = load(g + (long)i * PIXELS + q + p * VW);
            for (int j = 0; j < wide; j++) v[j] = load(x + (long)j * PIXELS + q + p * VW);
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < wide; j++) s[i][j][p] += u[i] * v[j];
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < wide; j++)
            for (int p = 0; p < PARTS; p++) store(lanes + (i * columns + j) * LANES + p * VW, s[i][j][p]);
}

/* lanes[r][k] += g[r] x[k], pixel q to lane q % 16. */
static void outer(const float *g, const float *x, int rows, int columns, float *lanes) {
    int r = 0;
    for (; r + OUTER_ROWS <= rows; r += OUTER_ROWS) {
        int k = 0;
        for (; k + OUTER_COLUMNS <= columns; k += OUTER_COLUMNS)
            outer_block(g + (long)r * PIXELS, x + (long)k * PIXELS, columns, lanes + ((long)r * columns + k) * LANES,
                        OUTER_ROWS, OUTER_COLUMNS);
        for (; k < columns; k++)
            outer_block(g + (long)r * PIXELS, x + (long)k * PIXELS, columns, lanes + ((long)r * columns + k) * LANES,
                        OUTER_ROWS, 1);
    }
    for (; r < rows; r++)
        for (int k = 0; k < columns; k++)
            outer_block(g + (long)r * PIXELS, x + (long)k * PIXELS, columns, lanes + ((long)r * columns + k) * LANES, 1, 1);
}

/* ---- pointwise convolutions */

struct pointwise_backward {
    const float *g;         /* (N, C', pixels): what comes in for the normalised map, or for the convolution's */
    const void *v;          /* (N, C', pixels): what was normalised, or NULL */
    const struct derivative *d; /* (C'): the norm's derivative */
    const void *x;          /* (N, C, pixels): the inner map */
    const struct middle *middle;
    const float *weight;
    float *out;             /* (N, C, pixels) */
    double *weight_sums;    /* (chunks, C', C) */
    double *channel_sums;   /* (chunks, C, 2): of out and of out (v - mean), or NULL */
    int kind, x_kind, estimator, images, inputs, outputs;
    long pixels, chunk, g_stride;
    float window;
};

#define SEGMENTS(start, count, pixels)                                                                             \
    for (long done = 0, n, q, length; done < (count) && (n = ((start) + done) / (pixels),                          \
         q = ((start) + done) % (pixels), length = minimum((pixels) - q, (count) - done)); done += length)

static void add_lanes(const float *x, const float *y, float mean, float *first, float *second) {
    vf a[PARTS], b[PARTS];
    for (int p = 0; p < PARTS; p++) a[p] = load(first + p * VW), b[p] = load(second + p * VW);
    for (long q = 0; q < PIXELS; q += LANES)
        for (int p = 0; p < PARTS; p++) {
            vf z = load(x + q + p * VW);
            a[p] += z;
            b[p] += z * (load(y + q + p * VW) - mean);
        }
    for (int p = 0; p < PARTS; p++) store(first + p * VW, a[p]), store(second + p * VW, b[p]);
}

static void backward_chunk(long unit, void *context) {
    struct pointwise_backward *p = context;
    int rows = p->outputs, columns = p->inputs;
    long cells = (long)rows * columns, total = p->images * p->pixels;
    long first = unit * p->chunk, last = minimum(first + p->chunk, total);
    float *g = allocate(4L * rows * PIXELS), *v = allocate(4L * columns * PIXELS), *s = allocate(4L * columns * PIXELS);
    float *z = allocate(4L * columns * PIXELS), *lanes = allocate(4L * cells * LANES);
    float *channel_lanes = allocate(4L * columns * 2 * LANES), wide[PIXELS];
    double *weight_sums = p->weight_sums + unit * cells;
    double *channel_sums = p->channel_sums ? p->channel_sums + unit * columns * 2 : NULL;
    memset(lanes, 0, 4L * cells * LANES), memset(channel_lanes, 0, 4L * columns * 2 * LANES);
    memset(weight_sums, 0, 8 * cells);
    if (channel_sums) memset(channel_sums, 0, 8L * columns * 2);
    int tiles = 0;
    for (long start = first; start < last; start += PIXELS) {
        long count = minimum(PIXELS, last - start);
        if (count < PIXELS)
            memset(g, 0, 4L * rows * PIXELS), memset(v, 0, 4L * columns * PIXELS), memset(s, 0, 4L * columns * PIXELS);
        SEGMENTS(start, count, p->pixels) for (int c = 0; c < rows; c++) {
            const float *from = p->g + n * p->g_stride + c * p->pixels + q;
            float *to = g + (long)c * PIXELS + done;
            if (!p->v) { memcpy(to, from, 4 * length); continue; }
            struct derivative d = p->d[c];
            widen(p->v, p->kind, (n * rows + c) * p->pixels + q, length, wide);
            for (long i = 0; i < length; i++) to[i] = d.slope * (from[i] - d.a - (wide[i] - d.mean) * d.b);
        }
        SEGMENTS(start, count, p->pixels) for (int c = 0; c < columns; c++) {
            float *to = v + (long)c * PIXELS + done;
            widen(p->x, p->x_kind, (n * columns + c) * p->pixels + q, length, to);
            if (!p->middle) continue;
            float low = p->middle[c].low, high = p->middle[c].high, *sign = s + (long)c * PIXELS + done;
            for (long i = 0; i < length; i++) sign[i] = (to[i] >= low) & (to[i] <= high) ? 1.0f : -1.0f;
        }
        outer(g, p->middle ? s : v, rows, columns, lanes);
        product(p->weight, 1, columns, columns, rows, g, z);
        if (p->middle) for (int c = 0; c < columns; c++) {
            struct middle m = p->middle[c];
            for (int i = 0; i < PIXELS; i++) wide[i] = (v[(long)c * PIXELS + i] - m.mean) * m.gain + m.bias;
            pass_estimate(z + (long)c * PIXELS, wide, PIXELS, p->estimator, p->window);
            if (channel_sums)
                add_lanes(z + (long)c * PIXELS, v + (long)c * PIXELS, m.mean, channel_lanes + 2L * c * LANES,
                          channel_lanes + (2L * c + 1) * LANES);
        }
        SEGMENTS(start, count, p->pixels) for (int c = 0; c < columns; c++)
            memcpy(p->out + (n * columns + c) * p->pixels + q, z + (long)c * PIXELS + done, 4 * length);
        if (++tiles == 32 || start + PIXELS >= last) { /* so many additions in float32, then in float64 */
            for (long i = 0; i < cells; i++) weight_sums[i] += tree_of_floats(lanes + i * LANES);
            if (channel_sums)
                for (long i = 0; i < 2 * columns; i++) channel_sums[i] += tree_of_floats(channel_lanes + i * LANES);
            memset(lanes, 0, 4L * cells * LANES), memset(channel_lanes, 0, 4L * columns * 2 * LANES);
            tiles = 0;
        }
    }
    free(g), free(v), free(s), free(z), free(lanes), free(channel_lanes);
}

static long chunk_of(long pixels) { return maximum(1024, round_up((pixels + 15) / 16, PIXELS)); }

static void add_chunks(const double *parts, long chunks, long cells, double *out) {
    for (long i = 0; i < cells; i++) {
        double sum = 0;
        for (long k = 0; k < chunks; k++) sum += parts[k * cells + i];
        out[i] = sum;
    }
}

/* Gradients of a pointwise convolution between two norms.
 *
 * d, v: derivative (C', 4) of the norm that follows and what it normalised; v = NULL: g is the convolution's own.
 * x, middle: the convolution's input is x itself, or sign(norm(x)); then `out` is the gradient in norm(x), passed
 * through sign, and sums (C, 2) are those of out and of out (x - mean).
 */
EXPORT void pointwise_gradients(const float *g, long g_stride, const void *v, int kind, const struct derivative *d, const void *x,
                                int x_kind, const struct middle *middle, int estimator, float window, const float *weight, int images,
                                int inputs, long pixels, int outputs, float *out, float *in_weight, double *sums,
                                int threads) {
    long total = images * pixels, chunk = chunk_of(total), chunks = (total + chunk - 1) / chunk;
    long cells = (long)inputs * outputs;
    double *parts = allocate(8 * chunks * (cells + 2L * inputs)), *whole = allocate(8 * cells);
    struct pointwise_backward p = {g, v, d, x, middle, weight, out, parts, sums ? parts + chunks * cells : NULL,
                                   kind, x_kind, estimator, images, inputs, outputs, pixels, chunk, g_stride, window};
    in_parallel(chunks, threads, backward_chunk, &p);
    add_chunks(parts, chunks, cells, whole);
    for (long i = 0; i < cells; i++) in_weight[i] = (float)whole[i];
    if (sums) add_chunks(parts + chunks * cells, chunks, 2L * inputs, sums);
    free(parts), free(whole);
}

struct pointwise_forward {
    const float *x;
    const void *v; /* as above: x is a tangent of what was normalised, passed through norm and sign */
    const struct derivative *d;
    const struct middle *middle;
    const float *weight;
    float *out;
    int kind, estimator, images, inputs, outputs;
    long pixels, out_stride;
    float window;
};

static void forward_tile(long unit, void *context) {
    struct pointwise_forward *p = context;
    long start = unit * PIXELS, count = minimum(PIXELS, p->images * p->pixels - start);
    float *x = allocate(4L * p->inputs * PIXELS), *y = allocate(4L * p->outputs * PIXELS), v[PIXELS], w[PIXELS];
    if (count < PIXELS) memset(x, 0, 4L * p->inputs * PIXELS);
    SEGMENTS(start, count, p->pixels) for (int c = 0; c < p->inputs; c++) {
        long at = (n * p->inputs + c) * p->pixels + q;
        float *to = x + (long)c * PIXELS + done;
        memcpy(to, p->x + at, 4 * length);
        if (!p->v) continue;
        struct derivative d = p->d[c];
        struct middle m = p->middle[c];
        widen(p->v, p->kind, at, length, v);
        for (long i = 0; i < length; i++) to[i] = d.slope * (to[i] - d.a - (v[i] - d.mean) * d.b);
        for (long i = 0; i < length; i++) w[i] = (v[i] - m.mean) * m.gain + m.bias;
        pass_estimate(to, w, length, p->estimator, p->window);
    }
    product(p->weight, p->inputs, 1, p->outputs, p->inputs, x, y);
    SEGMENTS(start, count, p->pixels) for (int c = 0; c < p->outputs; c++)
        memcpy(p->out + n * p->out_stride + c * p->pixels + q, y + (long)c * PIXELS + done, 4 * length);
    free(x), free(y);
}

/* A pointwise convolution of floats x, or of x led as a tangent through norm and sign at v. */
EXPORT void pointwise_floats(const float *x, const void *v, int kind, const struct derivative *d, const struct middle *middle,
                             int estimator, float window, const float *weight, int images, int inputs, long pixels, int outputs,
                             long out_stride, float *out, int threads) {
    struct pointwise_forward p = {x, v, d, middle, weight, out, kind, estimator, images, inputs, outputs, pixels,
                                  out_stride, window};
    in_parallel((images * pixels + PIXELS - 1) / PIXELS, threads, forward_tile, &p);
}

/* ---- depthwise convolutions */

/* One row; a count that the compiler knows costs a few instructions, another one a call. */
static inline void copy_row(float *to, const float *from, int count) {
    if (count == 32) memcpy(to, from, 4 * 32);
    else if (count == 16) memcpy(to, from, 4 * 16);
    else if (count == 8) memcpy(to, from, 4 * 8);
    else memcpy(to, from, 4L * count);
}

/* The phases of one channel of one image; `wide` has room for its pixels. */
static void split_floats(const struct geometry *g, const void *x, int kind, long at, float *wide, float *phases) {
    int s = g->stride;
    widen(x, kind, at, (long)g->height * g->width, wide);
    for (int i = 0; i < g->height; i++) {
        const float *from = wide + (long)i * g->width;
        for (int b = 0; b < s; b++) {
            float *to = phases + ((i % s) * s + b) * g->plane + g->origin + (long)(i / s) * g->row;
            if (s == 1) copy_row(to, from, g->width);
            else for (int j = 0; b + j * s < g->width; j++) to[j] = from[b + j * s];
        }
    }
}

/* out[q] = sum of factor[t] from[t][q] in order of t. */
static void shifted_sum(const float *const *from, const float *factor, int taps, long length, float *out) {
    for (long q = 0; q < length; q += VW * VECTORS) {
        vf s[VECTORS] = {{0}};
        for (int t = 0; t < taps; t++) {
            vf w = spread(factor[t]);
            for (int j = 0; j < VECTORS; j++) s[j] += w * load(from[t] + q + j * VW);
        }
        for (int j = 0; j < VECTORS; j++) store(out + q + j * VW, s[j]);
    }
}

struct depthwise_floats {
    struct geometry g;
    const void *x;
    int kind, images, channels;
    float border;
    const float *weight;
    float *out;
    /* backward */
    const float *gradient; /* (N, C, H', W') of the norm's output */
    const void *v;         /* what was normalised, or NULL */
    int v_kind;
    const struct derivative *d;
    double *sums; /* (groups, C, taps) */
};

static void fill(float *x, long count, float value) {
    for (long i = 0; i < count; i++) x[i] = value;
}

static void floats_channel(long unit, void *context) {
    struct depthwise_floats *d = context;
    const struct geometry *g = &d->g;
    long channel = unit % d->channels, first = unit / d->channels * 16, last = minimum(first + 16, d->images);
    float *phases = allocate(4 * g->plane * g->phases), *sum = allocate(4 * g->plane);
    float *wide = allocate(4L * g->height * g->width);
    const float *from[MAX_TAPS];
    fill(phases, g->plane * g->phases, d->border);
    for (int t = 0; t < g->taps; t++) from[t] = phases + g->phase[t] * g->plane + g->origin + g->shift[t];
    for (long n = first; n < last; n++) {
        long at = n * d->channels + channel;
        split_floats(g, d->x, d->kind, at * g->height * g->width, wide, phases);
        shifted_sum(from, d->weight + channel * g->taps, g->taps, g->length, sum);
        for (int i = 0; i < g->out_height; i++)
            copy_row(d->out + (at * g->out_height + i) * g->out_width, sum + (long)i * g->row, g->out_width);
    }
    free(phases), free(sum), free(wide);
}

/* A depthwise convolution of floats, (N, C, H, W) to (N, C, H', W'), padded by zeros. */
EXPORT void depthwise_floats(const float *x, const float *weight, int images, int channels, int height, int width,
                             int kernel, int stride, int dilation, float *out, int threads) {
    struct depthwise_floats d = {make_geometry(height, width, kernel, stride, dilation), x, FLOATS, images, channels,
                                 0, weight, out};
    in_parallel((long)channels * ((images + 15) / 16), threads, floats_channel, &d);
}

static inline void tap_block(const float *g, const float *const *from, long length, double *lanes, const int taps) {
    vf s[TAPS][PARTS] = {{{0}}};
    for (long q = 0; q < length; q += LANES)
        for (int p = 0; p < PARTS; p++) {
            vf u = load(g + q + p * VW);
            for (int t = 0; t < taps; t++) s[t][p] += u * load(from[t] + q + p * VW);
        }
    for (int t = 0; t < taps; t++) {
        float lane[LANES];
        for (int p = 0; p < PARTS; p++) store(lane + p * VW, s[t][p]);
        for (int l = 0; l < LANES; l++) lanes[t * LANES + l] += lane[l];
    }
}

static void gradients_channel(long unit, void *context) {
    struct depthwise_floats *d = context;
    const struct geometry *g = &d->g;
    int s = g->stride;
    long channel = unit % d->channels, first = unit / d->channels * 16, last = minimum(first + 16, d->images);
    float *phases = allocate(4 * g->plane * g->phases), *inner = allocate(4 * g->plane), *sum = allocate(4 * g->plane);
    float *wide = allocate(4L * g->height * g->width), factors[MAX_PHASES][MAX_TAPS];
    const float *from[MAX_TAPS], *back[MAX_PHASES][MAX_TAPS];
    int counts[MAX_PHASES] = {0};
    double lanes[MAX_TAPS * LANES] = {0};
    fill(phases, g->plane * g->phases, d->border), fill(inner, g->plane, 0);
    for (int t = 0; t < g->taps; t++) {
        int phase = g->phase[t], k = counts[phase]++;
        from[t] = phases + phase * g->plane + g->origin + g->shift[t];
        back[phase][k] = inner + g->origin - g->shift[t];
        factors[phase][k] = d->weight[channel * g->taps + t];
    }
    for (long n = first; n < last; n++) {
        long at = n * d->channels + channel, pixels = (long)g->out_height * g->out_width;
        split_floats(g, d->x, d->kind, at * g->height * g->width, wide, phases);
        const float *gradient = d->gradient + at * pixels;
        if (d->v) {
            struct derivative e = d->d[channel];
            widen(d->v, d->v_kind, at * pixels, pixels, wide);
            for (long i = 0; i < pixels; i++) wide[i] = e.slope * (gradient[i] - e.a - (wide[i] - e.mean) * e.b);
            gradient = wide;
        }
        for (int i = 0; i < g->out_height; i++)
            copy_row(inner + g->origin + (long)i * g->row, gradient + (long)i * g->out_width, g->out_width);
        int t = 0;
        for (; t + TAPS <= g->taps; t += TAPS) tap_block(inner + g->origin, from + t, g->length, lanes + t * LANES, TAPS);
        for (; t < g->taps; t++) tap_block(inner + g->origin, from + t, g->length, lanes + t * LANES, 1);
        float *out = d->out + at * g->height * g->width;
        for (int phase = 0; phase < g->phases; phase++) {
            int a = phase / s, b = phase % s;
            shifted_sum(back[phase], factors[phase], counts[phase], g->length, sum);
            for (int i = 0; a + i * s < g->height; i++) {
                float *to = out + (long)(a + i * s) * g->width, *row = sum + (long)i * g->row;
                if (s == 1) copy_row(to, row, g->width);
                else for (int j = 0; b + j * s < g->width; j++) to[b + j * s] = row[j];
            }
        }
    }
    for (int t = 0; t < g->taps; t++) d->sums[unit * g->taps + t] = tree(lanes + t * LANES);
    free(phases), free(inner), free(sum), free(wide);
}

/* Gradients of a depthwise convolution that a norm follows (v, d: as above; v = NULL for none). */
EXPORT void depthwise_gradients(const float *gradient, const void *v, int v_kind, const struct derivative *d, const void *x, int x_kind,
                                float border, const float *weight, int images, int channels, int height, int width,
                                int kernel, int stride, int dilation, float *out, float *in_weight, int threads) {
    long groups = (images + 15) / 16, cells = (long)channels * kernel * kernel;
    double *sums = allocate(8 * groups * cells), *whole = allocate(8 * cells);
    struct depthwise_floats all = {make_geometry(height, width, kernel, stride, dilation), x, x_kind, images, channels,
                                   border, weight, out, gradient, v, v_kind, d, sums};
    in_parallel(groups * channels, threads, gradients_channel, &all);
    add_chunks(sums, groups, cells, whole);
    for (long i = 0; i < cells; i++) in_weight[i] = (float)whole[i];
    free(sums), free(whole);
}

/* The sum of x y: lanes of 4096 entries in float32, their sums in float64. */
EXPORT void dot(const float *x, const float *y, long count, double *out) {
    double sum = 0;
    for (long start = 0; start < count; start += 4096) {
        long end = minimum(start + 4096, count), i = start;
        float lane[LANES];
        vf s[PARTS] = {{0}};
        for (; i + LANES <= end; i += LANES)
            for (int p = 0; p < PARTS; p++) s[p] += load(x + i + p * VW) * load(y + i + p * VW);
        for (int p = 0; p < PARTS; p++) store(lane + p * VW, s[p]);
        for (int l = 0; i < end; i++, l++) lane[l] += x[i] * y[i];
        sum += tree_of_floats(lane);
    }
    *out = sum;
}
