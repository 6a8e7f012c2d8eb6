"""Benchmarks. Each benchmark module has a function ``run()`` that yields results.

The modules ``compare``, ``results``, ``page`` and ``cloud`` are shared. ``minimal`` and ``minimal_api`` are peers.
"""
