"""Receives, queues, stores and announces orders."""
