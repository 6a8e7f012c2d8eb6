"""Tests on a deployed system. All tests of a worker share it, including those in ``browser`` and ``faults``.

A test uses only items with its own ids (``new_id``), and leaves nothing behind that could affect the next test:

- It finds its own items by id. It never counts a shared list, inbox or queue, never takes the first or newest entry,
  and never expects a list to be empty.
- It never empties a queue. ``own_letters`` deletes the test's dead letters by id.
- It waits until the work that it started is complete: its orders and uploads are in the inbox, and its reports have
  finished. Otherwise the next test may remove a permission that the work still needs, which leaves a dead letter.
- It changes roles, tables, passwords and settings only inside a ``with`` block that restores them.
- A test that cannot restore the stack uses its own.
"""
