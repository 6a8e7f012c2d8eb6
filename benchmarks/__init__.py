"""Benchmarks: ``run()`` of each module measures one thing and yields results.

``compare``, ``results``, ``page`` and ``cloud`` are shared. ``minimal`` and ``minimal_api`` are peers.
"""
