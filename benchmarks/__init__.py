"""Measures the speed of the system and computes its costs. The function ``run()`` of each benchmark module yields
results.

The modules ``compare``, ``results``, ``page`` and ``cloud`` contain shared code. A peer does the same work as the
system's code in a different way. The modules ``minimal`` and ``minimal_api`` are peers.
"""
