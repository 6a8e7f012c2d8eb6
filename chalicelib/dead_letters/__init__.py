"""Dead letters: messages that failed permanently. A person can list and redrive them.

The queue ``orders-dead`` contains orders that ``store_orders`` failed to store five times. The queue ``failures``
contains four other kinds of message, which the module ``letters`` describes.
"""
