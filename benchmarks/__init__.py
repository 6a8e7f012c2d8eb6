"""Benchmarks: each module but ``compare`` and ``cloud`` measures one thing and has ``run() -> list[Row]``."""
