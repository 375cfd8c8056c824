"""From run records to what people read: checks, rows, statistics and renderers."""
