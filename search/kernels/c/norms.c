/* Batch norms: records from moments, normalisation, derivatives. */

#include "lanes.h"
#include "norms.h"

/* Whether integer `value` of a channel gives +1: exact where there is no affine part, else in float64. */
static int is_plus(const double *s, double value, const int64_t *sums, double count, const float *gamma, int running,
                   double running_mean) {
    if (!gamma) {
        if (running) return s[BETA] * value >= running_mean;
        return s[BETA] == 0 || (__int128)(int64_t)count * (int64_t)value >= (__int128)sums[0];
    }
    return ((value - s[MEAN]) * s[GAIN]) + s[BIAS] >= 0;
}

static void finish(double *s, double root, const float *gamma, const float *bias, double running_mean) {
    double scale = gamma ? *gamma : 1;
    s[INV] = s[BETA] / root;
    s[SHIFT] = s[BETA] > 0 ? 0 : -running_mean / root;
    s[GAIN] = s[INV] * scale;
    s[BIAS] = s[SHIFT] * scale + (bias ? *bias : 0);
    s[SLOPE] = scale / root;
}

static void follow(float *running_mean, float *running_var, double mean, double var, double count, double momentum) {
    double unbiased = var * (count / (count - 1));
    *running_mean = (float)((1 - momentum) * *running_mean + momentum * mean);
    *running_var = (float)((1 - momentum) * *running_var + momentum * unbiased);
}

/* The records of a batch norm over beta I; see STAT. Without `gamma` there is no affine part. `running_mean` and
 * `running_var` (of beta I) replace the batch's where `evaluate`, else they are updated where they are given. */
EXPORT void integer_norm(const int64_t *sums, double count, const float *weight, long weight_stride, int channels,
                         int largest, double eps, const float *gamma, const float *bias, float *running_mean,
                         float *running_var, double momentum, int evaluate, double *stats) {
    for (int c = 0; c < channels; c++) {
        double *s = stats + (long)c * STAT, beta = fabs((double)weight[c * weight_stride]), var;
        int64_t n = (int64_t)count, first = sums ? sums[2 * c] : 0, second = sums ? sums[2 * c + 1] : 0;
        s[BETA] = beta, s[COUNT] = count, s[SHIFT] = 0;
        if (evaluate) {
            var = running_var[c];
            s[MEAN] = beta > 0 ? running_mean[c] / beta : 0;
        } else {
            double spread = (double)((__int128)n * second - (__int128)first * first) / (count * count);
            s[MEAN] = (double)first / count;
            var = beta * beta * spread;
            if (running_mean) follow(running_mean + c, running_var + c, beta * s[MEAN], var, count, momentum);
        }
        finish(s, sqrt(var + eps), gamma ? gamma + c : NULL, bias ? bias + c : NULL, evaluate ? running_mean[c] : 0);
        s[LOW] = 127, s[HIGH] = -128;
        if (largest > 127) continue; /* only sums in bytes are compared */
        for (int value = -largest; value <= largest; value++)
            if (is_plus(s, value, sums ? sums + 2 * c : NULL, count, gamma, evaluate, evaluate ? running_mean[c] : 0)) {
                if (value < s[LOW]) s[LOW] = value;
                s[HIGH] = value;
            }
    }
}

/* The same over floats, from the sums of v and v^2 (C, 2). */
EXPORT void float_norm(const double *sums, double count, int channels, double eps, const float *gamma, const float *bias,
                       float *running_mean, float *running_var, double momentum, int evaluate, double *stats) {
    for (int c = 0; c < channels; c++) {
        double *s = stats + (long)c * STAT, var;
        s[BETA] = 1, s[COUNT] = count, s[LOW] = 0, s[HIGH] = 0;
        if (evaluate) {
            s[MEAN] = running_mean[c], var = running_var[c];
        } else {
            s[MEAN] = sums[2 * c] / count;
            var = sums[2 * c + 1] / count - s[MEAN] * s[MEAN];
            if (var < 0) var = 0;
            if (running_mean) follow(running_mean + c, running_var + c, s[MEAN], var, count, momentum);
        }
        finish(s, sqrt(var + eps), gamma ? gamma + c : NULL, bias ? bias + c : NULL, 0);
    }
}

/* Derivatives (C) from the sums (C, 2) of g and of g (v - mean); `affine` (2, C), the gradients of gamma and bias. */
EXPORT void norm_derivative(const double *stats, const double *sums, int channels, int evaluate, struct derivative *out,
                            float *affine) {
    for (int c = 0; c < channels; c++) {
        const double *s = stats + (long)c * STAT;
        double product = sums ? sums[2 * c + 1] * s[INV] + sums[2 * c] * s[SHIFT] : 0;
        out[c] = (struct derivative){(float)s[SLOPE], 0, (float)s[MEAN], 0};
        if (!evaluate) {
            out[c].a = (float)(sums[2 * c] / s[COUNT]);
            out[c].b = (float)(product / s[COUNT] * s[INV]);
        }
        if (affine) affine[c] = (float)product, affine[channels + c] = (float)sums[2 * c];
    }
}

/* What a sign after the norm needs to know of each channel. */
EXPORT void norm_middle(const double *stats, int channels, struct middle *out) {
    for (int c = 0; c < channels; c++) {
        const double *s = stats + (long)c * STAT;
        out[c] = (struct middle){(float)s[MEAN], (float)s[GAIN], (float)s[BIAS], (float)s[LOW], (float)s[HIGH]};
    }
}

#define NORMALISE(name, type)                                                                                      \
    EXPORT void name(const type *x, const double *stats, long planes, int channels, long pixels, float *out) {     \
        for (long k = 0; k < planes; k++) {                                                                        \
            const double *s = stats + (k % channels) * STAT;                                                       \
            float mean = (float)s[MEAN], gain = (float)s[GAIN], bias = (float)s[BIAS];                             \
            const type *from = x + k * pixels;                                                                     \
            float *to = out + k * pixels;                                                                          \
            for (long i = 0; i < pixels; i++) to[i] = ((float)from[i] - mean) * gain + bias;                       \
        }                                                                                                          \
    }

/* y = (v - mean) gain + bias, (N, C, pixels) in float32. */
NORMALISE(normalise_bytes, int8_t)
NORMALISE(normalise_shorts, int16_t)
NORMALISE(normalise_floats, float)
