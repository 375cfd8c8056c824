/* What is known of a batch norm's channel after the forward pass. */
#ifndef NORMS_H
#define NORMS_H

#define STAT 10
/* Entries of a channel's record of a batch norm over c = beta I (I the integer sum):
 * xhat = (I - MEAN) INV + SHIFT, y = (I - MEAN) GAIN + BIAS, sign(y) = +1 where LOW <= I <= HIGH;
 * SLOPE = gamma / sqrt(var + eps). SHIFT is not 0 only for a channel whose weights are all 0. */
enum { MEAN, INV, GAIN, BIAS, SLOPE, BETA, LOW, HIGH, SHIFT, COUNT };

/* A norm's derivative, from g at its output: slope (g - a - (v - mean) b), v what it normalised. */
struct derivative {
    float slope, a, mean, b;
};

/* sign of a norm: n = (v - mean) gain + bias, +1 where low <= v <= high. */
struct middle {
    float mean, gain, bias, low, high;
};

#endif
