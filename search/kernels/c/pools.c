/* 3x3 pools with padding 1, at any stride of 1 or 2: maxima by the first position, averages over what is inside. */

#include "geometry.h"

struct pool {
    struct geometry g;
    const float *x, *gradient;
    int images, channels, average;
    float *out;
    int8_t *where;
};

static void copy_floats(const struct geometry *g, const float *x, float *phases) {
    int s = g->stride;
    for (int i = 0; i < g->height; i++)
        for (int b = 0; b < s; b++) {
            float *to = phases + ((i % s) * s + b) * g->plane + g->origin + (long)(i / s) * g->row;
            const float *from = x + (long)i * g->width;
            for (int j = 0; b + j * s < g->width; j++) to[j] = from[b + j * s];
        }
}

static void fill(float *x, long count, float value) {
    for (long i = 0; i < count; i++) x[i] = value;
}

/* How many pixels of the window of output i lie inside, in one direction. */
static inline int inside(int i, int stride, int size) {
    int first = (int)maximum(0, (long)i * stride - 1), last = (int)minimum(size - 1, (long)i * stride + 1);
    return last - first + 1;
}

static void maximum_of(const float *const *from, int taps, long length, float *out, int8_t *where) {
    for (long q = 0; q < length; q += LANES) {
        float best[LANES];
        int which[LANES] = {0};
        memcpy(best, from[0] + q, sizeof best);
        for (int t = 1; t < taps; t++)
            for (int l = 0; l < LANES; l++) {
                float value = from[t][q + l];
                which[l] = value > best[l] ? t : which[l];
                best[l] = value > best[l] ? value : best[l];
            }
        memcpy(out + q, best, sizeof best);
        for (int l = 0; l < LANES; l++) where[q + l] = (int8_t)which[l];
    }
}

static void sum_of(const float *const *from, int taps, long length, float *out) {
    for (long q = 0; q < length; q += LANES) {
        float sum[LANES] = {0};
        for (int t = 0; t < taps; t++)
            for (int l = 0; l < LANES; l++) sum[l] += from[t][q + l];
        memcpy(out + q, sum, sizeof sum);
    }
}

static void pool_plane(long unit, void *context) {
    struct pool *p = context;
    const struct geometry *g = &p->g;
    long first = unit * 64, last = minimum(first + 64, (long)p->images * p->channels);
    float *phases = allocate(4 * g->plane * g->phases), *out = allocate(4 * g->plane);
    int8_t *where = allocate(g->plane);
    const float *from[9];
    fill(phases, g->plane * g->phases, p->average ? 0 : -INFINITY);
    for (int t = 0; t < 9; t++) from[t] = phases + g->phase[t] * g->plane + g->origin + g->shift[t];
    long pixels = (long)g->out_height * g->out_width;
    for (long n = first; n < last; n++) {
        copy_floats(g, p->x + n * g->height * g->width, phases);
        if (p->average) sum_of(from, 9, g->length, out);
        else maximum_of(from, 9, g->length, out, where);
        for (int i = 0; i < g->out_height; i++) {
            float *to = p->out + n * pixels + (long)i * g->out_width, *row = out + (long)i * g->row;
            if (p->average) {
                int rows = inside(i, g->stride, g->height);
                for (int j = 0; j < g->out_width; j++)
                    to[j] = row[j] / (float)(rows * inside(j, g->stride, g->width));
            } else {
                memcpy(to, row, 4L * g->out_width);
                memcpy(p->where + n * pixels + (long)i * g->out_width, where + (long)i * g->row, g->out_width);
            }
        }
    }
    free(phases), free(out), free(where);
}

/* x (N, C, H, W) to (N, C, H', W'); for maxima `where` gets each one's place in its window, 0 to 8 by rows. */
EXPORT void pool_forward(const float *x, int images, int channels, int height, int width, int stride, int average,
                         float *out, int8_t *where, int threads) {
    struct pool p = {make_geometry(height, width, 3, stride, 1), x, NULL, images, channels, average, out, where};
    in_parallel(((long)images * channels + 63) / 64, threads, pool_plane, &p);
}

static void pool_gradient(long unit, void *context) {
    struct pool *p = context;
    const struct geometry *g = &p->g;
    int s = g->stride;
    long first = unit * 64, last = minimum(first + 64, (long)p->images * p->channels);
    float *inner = allocate(4 * g->plane), *out = allocate(4 * g->plane);
    int8_t *where = allocate(g->plane);
    long pixels = (long)g->out_height * g->out_width;
    fill(inner, g->plane, 0), memset(where, -1, g->plane);
    for (long n = first; n < last; n++) {
        for (int i = 0; i < g->out_height; i++) {
            const float *from = p->gradient + n * pixels + (long)i * g->out_width;
            float *to = inner + g->origin + (long)i * g->row;
            if (p->average) {
                int rows = inside(i, s, g->height);
                for (int j = 0; j < g->out_width; j++) to[j] = from[j] / (float)(rows * inside(j, s, g->width));
            } else {
                memcpy(to, from, 4L * g->out_width);
                memcpy(where + g->origin + (long)i * g->row, p->where + n * pixels + (long)i * g->out_width, g->out_width);
            }
        }
        for (int phase = 0; phase < g->phases; phase++) {
            const float *back[9];
            const int8_t *place[9];
            int taps[9], count = 0;
            for (int t = 0; t < 9; t++)
                if (g->phase[t] == phase) {
                    back[count] = inner + g->origin - g->shift[t];
                    place[count] = where + g->origin - g->shift[t];
                    taps[count++] = t;
                }
            if (p->average) sum_of(back, count, g->length, out);
            else for (long q = 0; q < g->length; q += LANES) {
                float sum[LANES] = {0};
                for (int k = 0; k < count; k++)
                    for (int l = 0; l < LANES; l++)
                        sum[l] += place[k][q + l] == taps[k] ? back[k][q + l] : 0.0f;
                memcpy(out + q, sum, sizeof sum);
            }
            int a = phase / s, b = phase % s;
            for (int i = 0; a + i * s < g->height; i++) {
                float *to = p->out + (n * g->height + a + (long)i * s) * g->width, *row = out + (long)i * g->row;
                for (int j = 0; b + j * s < g->width; j++) to[b + j * s] = row[j];
            }
        }
    }
    free(inner), free(out), free(where);
}

/* The gradient in x from that in the pooled map. */
EXPORT void pool_backward(const float *gradient, const int8_t *where, int images, int channels, int height, int width,
                          int stride, int average, float *out, int threads) {
    struct pool p = {make_geometry(height, width, 3, stride, 1), NULL, gradient, images, channels, average, out,
                     (int8_t *)where};
    in_parallel(((long)images * channels + 63) / 64, threads, pool_gradient, &p);
}

/* What lies at the places of maxima: their tangent. */
EXPORT void pool_pick(const float *x, const int8_t *where, long planes, int height, int width, int stride, float *out) {
    int rows = (height + stride - 1) / stride, columns = (width + stride - 1) / stride;
    for (long n = 0; n < planes; n++)
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                long at = (n * rows + i) * columns + j;
                int y = i * stride - 1 + where[at] / 3, z = j * stride - 1 + where[at] % 3;
                out[at] = x[(n * height + y) * width + z];
            }
}
