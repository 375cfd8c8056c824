"""What `python -m pipelines.prepare` does for each data set: fetch, check, convert, describe."""
