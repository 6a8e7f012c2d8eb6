"""Dead letters: messages that failed for good, which a person can list and redrive.

The queue ``orders-dead`` contains orders that ``store_orders`` failed to store five times. The queue ``failures``
contains four other kinds of message, which the module ``letters`` describes.
"""
