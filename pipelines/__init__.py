"""Stage programs: ``python -m pipelines.<stage>`` reads declared files and writes declared files."""
