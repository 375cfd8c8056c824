/* Forward: signs, and the sums of +-1 products as integers together with their moments. */

#include "geometry.h"
#include "norms.h"

EXPORT void make_planes(const float *x, long count, int8_t *out) {
    for (long i = 0; i < count; i++) out[i] = x[i] >= 0 ? 1 : -1;
}

static void add_moments(const int8_t *x, long count, int64_t *sums) {
    int64_t first = 0, second = 0;
    for (long at = 0; at < count; at += 4096) {
        int a = 0, b = 0;
        long end = minimum(at + 4096, count);
        for (long i = at; i < end; i++) a += x[i], b += x[i] * x[i];
        first += a, second += b;
    }
    __atomic_fetch_add(&sums[0], first, __ATOMIC_RELAXED);
    __atomic_fetch_add(&sums[1], second, __ATOMIC_RELAXED);
}

static void add_moments_wide(const int16_t *x, long count, int64_t *sums) {
    int64_t first = 0, second = 0;
    for (long at = 0; at < count; at += 4096) {
        int a = 0, b = 0;
        long end = minimum(at + 4096, count);
        for (long i = at; i < end; i++) a += x[i], b += x[i] * x[i];
        first += a, second += b;
    }
    __atomic_fetch_add(&sums[0], first, __ATOMIC_RELAXED);
    __atomic_fetch_add(&sums[1], second, __ATOMIC_RELAXED);
}

/* ---- depthwise */

static inline void copy_row(int8_t *to, const int8_t *from, int count) {
    if (count == 32) memcpy(to, from, 32);
    else if (count == 16) memcpy(to, from, 16);
    else if (count == 8) memcpy(to, from, 8);
    else memcpy(to, from, count);
}

/* The phases of one channel of one image; the border is set already. */
static void split_bytes(const struct geometry *g, const int8_t *x, int8_t *phases) {
    int s = g->stride;
    for (int a = 0; a < s; a++)
        for (int i = 0; a + i * s < g->height; i++) {
            const int8_t *from = x + (long)(a + i * s) * g->width;
            for (int b = 0; b < s; b++) {
                int8_t *to = phases + (a * s + b) * g->plane + g->origin + (long)i * g->row;
                if (s == 1) copy_row(to, from, g->width);
                else for (int j = 0; b + j * s < g->width; j++) to[j] = from[b + j * s];
            }
        }
}

struct depthwise_forward {
    struct geometry g;
    const int8_t *x;
    const float *weight;
    int8_t *out;
    int64_t *sums;
    int images, channels, border;
};

static void depthwise_channel(long unit, void *context) {
    struct depthwise_forward *d = context;
    const struct geometry *g = &d->g;
    int channel = (int)(unit % d->channels);
    long first = unit / d->channels * 16, last = minimum(first + 16, d->images);
    int8_t *phases = allocate(g->plane * g->phases), *sum = allocate(g->plane);
    const int8_t *plus[MAX_TAPS], *minus[MAX_TAPS];
    int pluses = 0, minuses = 0;
    memset(phases, d->border, g->plane * g->phases);
    for (int t = 0; t < g->taps; t++) {
        const int8_t *from = phases + g->phase[t] * g->plane + g->origin + g->shift[t];
        if (signbit(d->weight[(long)channel * g->taps + t])) minus[minuses++] = from;
        else plus[pluses++] = from;
    }
    long pixels = (long)g->out_height * g->out_width;
    for (long n = first; n < last; n++) {
        split_bytes(g, d->x + (n * d->channels + channel) * g->height * g->width, phases);
        for (long q = 0; q < g->length; q += 2 * sizeof(vb)) {
            vb a = {0}, b = {0};
            for (int t = 0; t < pluses; t++)
                a += load_bytes(plus[t] + q), b += load_bytes(plus[t] + q + sizeof(vb));
            for (int t = 0; t < minuses; t++)
                a -= load_bytes(minus[t] + q), b -= load_bytes(minus[t] + q + sizeof(vb));
            store_bytes(sum + q, a), store_bytes(sum + q + sizeof(vb), b);
        }
        int8_t *out = d->out + (n * d->channels + channel) * pixels;
        for (int i = 0; i < g->out_height; i++) copy_row(out + (long)i * g->out_width, sum + (long)i * g->row, g->out_width);
        add_moments(out, pixels, d->sums + 2 * channel);
    }
    free(phases), free(sum);
}

/* x (N, C, H, W) of +-1 to the sums (N, C, H', W'); sums (C, 2): of I and of I^2, set to 0 by the caller. */
EXPORT void depthwise_sums(const int8_t *x, const float *weight, int images, int channels, int height, int width,
                           int kernel, int stride, int dilation, int border, int8_t *out, int64_t *sums, int threads) {
    struct depthwise_forward d = {make_geometry(height, width, kernel, stride, dilation),
                                  x, weight, out, sums, images, channels, border};
    in_parallel((long)channels * ((images + 15) / 16), threads, depthwise_channel, &d);
}

/* ---- pointwise */

#define TILE 256
#define GROUP 127 /* channels whose sum fits a byte */

struct pointwise_forward {
    const int8_t *x;
    const double *stats; /* thresholds of the inputs, or NULL: then x is +-1 itself */
    const float *weight;
    void *out;
    int64_t *sums;
    int images, inputs, outputs, wide;
    long pixels, image_stride; /* of an image's outputs, in entries */
    short *order;              /* for each output and group: how many are +1, then these, then the others */
};

static void read_signs(const struct pointwise_forward *p, long start, long count, int8_t *tile) {
    for (long done = 0; done < count;) {
        long n = (start + done) / p->pixels, q = (start + done) % p->pixels;
        long length = minimum(p->pixels - q, count - done);
        for (int c = 0; c < p->inputs; c++) {
            const int8_t *from = p->x + (n * p->inputs + c) * p->pixels + q;
            int8_t *to = tile + (long)c * TILE + done;
            if (!p->stats) { memcpy(to, from, length); continue; }
            int8_t low = (int8_t)p->stats[c * STAT + LOW], high = (int8_t)p->stats[c * STAT + HIGH];
            for (long i = 0; i < length; i++) to[i] = (from[i] >= low) & (from[i] <= high) ? 1 : -1;
        }
        done += length;
    }
}

static void sum_group(const int8_t *tile, const short *order, int count, int8_t *sum) {
    int pluses = order[0];
    for (long q = 0; q < TILE; q += 4 * sizeof(vb)) {
        vb s[4] = {{0}};
        for (int i = 0; i < count; i++) {
            const int8_t *from = tile + (long)order[1 + i] * TILE + q;
            if (i < pluses) for (int v = 0; v < 4; v++) s[v] += load_bytes(from + v * sizeof(vb));
            else for (int v = 0; v < 4; v++) s[v] -= load_bytes(from + v * sizeof(vb));
        }
        for (int v = 0; v < 4; v++) store_bytes(sum + q + v * sizeof(vb), s[v]);
    }
}

static void pointwise_tile(long unit, void *context) {
    struct pointwise_forward *p = context;
    long start = unit * TILE, count = minimum(TILE, p->images * p->pixels - start);
    int8_t *tile = allocate((long)p->inputs * TILE);
    int8_t sum[TILE] __attribute__((aligned(64)));
    int16_t wide[TILE];
    if (count < TILE) memset(tile, 0, (long)p->inputs * TILE);
    read_signs(p, start, count, tile);
    for (int co = 0; co < p->outputs; co++) {
        const short *order = p->order + (long)co * (p->inputs + (p->inputs + GROUP - 1) / GROUP);
        if (p->wide) memset(wide, 0, sizeof wide);
        for (int first = 0; first < p->inputs; first += GROUP) {
            int in_group = (int)minimum(GROUP, p->inputs - first);
            sum_group(tile, order, in_group, sum);
            order += in_group + 1;
            if (p->wide) for (int i = 0; i < TILE; i++) wide[i] += sum[i];
        }
        for (long done = 0; done < count;) {
            long n = (start + done) / p->pixels, q = (start + done) % p->pixels;
            long length = minimum(p->pixels - q, count - done), at = n * p->image_stride + (long)co * p->pixels + q;
            if (p->wide) memcpy((int16_t *)p->out + at, wide + done, 2 * length);
            else memcpy((int8_t *)p->out + at, sum + done, length);
            done += length;
        }
        if (p->wide) add_moments_wide(wide, count, p->sums + 2 * co);
        else add_moments(sum, count, p->sums + 2 * co);
    }
    free(tile);
}

/* x (N, C, pixels), +-1 or integers that `stats` turns into +-1, to the sums (N, C', pixels) in int8, or in int16
 * where `wide`; sums as above. `image_stride` lets the outputs be a part of the channels of a larger map. */
EXPORT void pointwise_sums(const int8_t *x, const double *stats, const float *weight, int images, int inputs, long pixels,
                           int outputs, int wide, long image_stride, void *out, int64_t *sums, int threads) {
    int groups = (inputs + GROUP - 1) / GROUP;
    short *order = allocate(sizeof(short) * outputs * (inputs + groups)), *to = order;
    for (int co = 0; co < outputs; co++)
        for (int first = 0; first < inputs; first += GROUP) {
            int in_group = (int)minimum(GROUP, inputs - first), at = 1;
            const float *w = weight + (long)co * inputs + first;
            for (int i = 0; i < in_group; i++) if (!signbit(w[i])) to[at++] = (short)(first + i);
            to[0] = (short)(at - 1);
            for (int i = 0; i < in_group; i++) if (signbit(w[i])) to[at++] = (short)(first + i);
            to += in_group + 1;
        }
    struct pointwise_forward p = {x, stats, weight, out, sums, images, inputs, outputs, wide, pixels, image_stride, order};
    in_parallel((images * pixels + TILE - 1) / TILE, threads, pointwise_tile, &p);
    free(order);
}

/* x (N, C, H, W) of +-1 to every second row and column from (offset, offset) on; +1 beyond the edge (sign(0)). */
EXPORT void every_second(const int8_t *x, long planes, int height, int width, int offset, int8_t *out) {
    int rows = (height + 1) / 2, columns = (width + 1) / 2;
    for (long c = 0; c < planes; c++)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                int y = 2 * i + offset, z = 2 * j + offset;
                out[(c * rows + i) * columns + j] = y < height && z < width ? x[(c * height + y) * width + z] : 1;
            }
}
