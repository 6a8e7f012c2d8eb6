"""Dead letters are messages that failed permanently. Managers can list and redrive dead letters.

The queue ``orders-dead`` contains orders that the function ``store_orders`` could not store in five attempts. The queue
``failures`` contains all other failed messages. ``letters.py`` describes the formats of these messages.
"""
