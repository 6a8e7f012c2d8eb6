"""Benchmarks: each module with ``run()`` measures one thing, and yields the lines of the table.

``compare`` and ``cloud`` are what they share; ``minimal`` and ``minimal_api`` are peers.
"""
