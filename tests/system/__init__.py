"""Tests on a deployed system, which all tests of a worker share, also those in ``browser`` and ``faults``.

A test works only on things with ids of its own (``new_id``), and leaves nothing behind that the next one could meet:

- It looks for its own things by their ids. It never counts a shared list, inbox or queue, never takes the first or the
  newest entry, and never expects a list to be empty.
- It never empties a queue. Its dead letters belong to ``own_letters``, which takes them away by their ids.
- It waits until what it has started has arrived: an order and an upload in the inbox, a report at its end. Otherwise
  the next test may take away a right that these still need, and they become dead letters of nobody.
- It changes roles, tables, passwords and settings only inside of a ``with`` that restores them.
- A test that cannot restore the stack has a stack of its own.
"""
