"""Dead letters: messages that failed for good, listed for a person and redriven. Each module has one job.

The queue ``orders-dead`` has the orders that ``store_orders`` failed on five times. The queue ``failures`` has four
other shapes, which ``letters`` describes.
"""
