/* What becomes of a block of integer sums; included once for each type of sum (SUM, NAMED(name)).
 *
 * sums[j * pitch + r * row + x] belongs to channel first + j, row top + r, column x of the output; a channel's bit is
 * +1 where its sum reaches the threshold. The file that includes it has included plan.h and string.h. */

/* The bits of up to LONGEST_RUN sums of each of a block's channels. */
static void NAMED(compare)(const operation *o, int first, int live, const SUM *sums, int pitch, int n, uint8_t *bits) {
    memset(bits, 0, (size_t)n);
    for (int j = 0; j < live; j++) {
        const SUM *s = sums + j * pitch, t = (SUM)o->threshold[first + j];
        const uint8_t bit = (uint8_t)(1u << j);
        for (int i = 0; i < n; i++) bits[i] |= s[i] >= t ? bit : 0;
    }
}

static void NAMED(emit_words)(const operation *o, int first, int live, const SUM *sums, int pitch, int top, int rows,
                              int row) {
    uint8_t bits[LONGEST_RUN];
    const value *v = o->out;
    const int whole = row == v->width && v->border == 0, height = whole ? 1 : rows;
    const int width = whole ? rows * row : v->width;
    if (!whole && rows * row <= LONGEST_RUN) { /* compare what lies between the rows too, in one run */
        NAMED(compare)(o, first, live, sums, pitch, (rows - 1) * row + width, bits);
        for (int r = 0; r < rows; r++)
            put_bits(v, first, live, (size_t)(top + r) * row_pitch(v), bits + r * row, width);
        return;
    }
    for (int r = 0; r < height; r++)
        for (int x = 0; x < width; x += LONGEST_RUN) {
            const int part = width - x < LONGEST_RUN ? width - x : LONGEST_RUN;
            NAMED(compare)(o, first, live, sums + r * row + x, pitch, part, bits);
            put_bits(v, first, live, (size_t)(top + r) * row_pitch(v) + (size_t)x, bits, part);
        }
}

static void NAMED(emit_planes)(const operation *o, int channel, const SUM *sums, int top, int rows, int row) {
    const value *v = o->out;
    const SUM t = (SUM)o->threshold[channel];
    for (int r = 0; r < rows; r++) {
        int8_t *y = (int8_t *)v->data + inside(v, channel) + (size_t)(top + r) * row_pitch(v);
        const SUM *s = sums + r * row;
        for (int x = 0; x < v->width; x++) y[x] = s[x] >= t ? 1 : -1;
    }
}

static void NAMED(emit_map)(const operation *o, int channel, const SUM *sums, int top, int rows, int row) {
    const value *v = o->out;
    const int whole = row == v->width, n = whole ? rows * row : v->width;
    const float beta = o->beta ? o->beta[channel] : 1.0f;
    for (int r = 0; r < (whole ? 1 : rows); r++) {
        const size_t at = (size_t)channel * plane_size(v) + (size_t)(top + r) * v->width;
        float *y = (float *)v->data + at;
        const SUM *s = sums + r * row;
        for (int x = 0; x < n; x++) y[x] = (float)s[x] * beta;
        finish_row(o, channel, y, o->addend ? (const float *)o->addend->data + at : NULL, n);
    }
}

static void NAMED(emit)(const operation *o, int first, int live, const SUM *sums, int pitch, int top, int rows,
                        int row) {
    if (o->out->kind == WORDS) {
        NAMED(emit_words)(o, first, live, sums, pitch, top, rows, row);
        return;
    }
    for (int j = 0; j < live; j++) {
        if (o->out->kind == PLANES)
            NAMED(emit_planes)(o, first + j, sums + j * pitch, top, rows, row);
        else
            NAMED(emit_map)(o, first + j, sums + j * pitch, top, rows, row);
    }
}
