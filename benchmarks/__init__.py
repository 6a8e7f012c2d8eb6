"""Measures and computes the system's speed and costs. The function ``run()`` of each benchmark module yields results.

The modules ``compare``, ``results``, ``page`` and ``cloud`` contain shared code. A peer is another way to do the same
work as the system's code. The modules ``minimal`` and ``minimal_api`` are peers.
"""
