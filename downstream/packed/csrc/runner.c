/* packed-run FILE OUTPUT HEIGHT WIDTH: float32 images (3, H, W) from standard input, one after another, to the output's
 * float32 values on standard output; the shape and the time an image on standard error. */
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    return 2;
}

int main(int count, char **words) {
    char message[200];
    if (count != 5) return fail(words[0], "give FILE OUTPUT HEIGHT WIDTH");
    const int height = atoi(words[3]), width = atoi(words[4]);
    if (height < 1 || width < 1 || height > 8192 || width > 8192) return fail(words[3], "no size from 1 to 8192");
    packed_network *network = packed_open(words[1], message);
    if (!network) return fail(words[1], message);
    packed_plan *plan = packed_plan_of(network, words[2], height, width, message);
    if (!plan) return fail(words[1], message);
    int32_t shape[3];
    packed_shape(plan, packed_output(network, words[2]), shape);
    const size_t in = (size_t)packed_channels(network) * height * width, out = (size_t)shape[0] * shape[1] * shape[2];
    float *image = malloc(sizeof(float) * in), *result = malloc(sizeof(float) * out);
    if (!image || !result) return fail(words[1], "not enough memory");
    double seconds = 0.0;
    int images = 0;
    while (fread(image, sizeof(float), in, stdin) == in) {
        const double start = now();
        packed_run(plan, image, 1, &result);
        seconds += now() - start, images++;
        if (fwrite(result, sizeof(float), out, stdout) != out) return fail("standard output", "cannot be written");
    }
    fprintf(stderr, "%s: %d images, each %d x %d x %d, %.3f ms an image\n", packed_variant(), images, shape[0], shape[1],
            shape[2], images ? 1e3 * seconds / images : 0.0);
    free(image), free(result);
    packed_free(plan);
    packed_close(network);
    return 0;
}
