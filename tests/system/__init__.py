"""Tests that run on a deployed system.

All tests in one pytest worker share the same system, including the tests in ``browser`` and ``faults``. Each test
therefore follows these rules.

A test finds its own items by the ids from ``new_id``. A test never counts the entries of a shared list, inbox or queue.
A test never takes the first or newest entry of a list, and never expects a list to be empty.

A test never empties a queue. The context manager ``own_letters`` deletes a test's dead letters by id.

A test waits until the work that it started is complete. The work is complete when its orders and uploads are announced
in the inbox and its reports have ended. Otherwise, the next test could remove a permission that the unfinished work
needs, which would cause a dead letter.

A test changes roles, tables, passwords and settings only inside a ``with`` block that restores them. A test that cannot
restore the stack uses a separate stack.
"""
