"""Is the code of an answer right: finding it, parsers, the sandbox, overlap with benchmarks."""
