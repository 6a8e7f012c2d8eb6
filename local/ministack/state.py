"""Patches for MiniStack's state."""

import os
import signal
from functools import wraps
from pathlib import Path
from typing import Any

# MiniStack's files can contain secrets, but by default all users of the machine could read them.
PRIVATE = 0o077


def saved_state() -> None:
    """AWS never loses its state. With this patch, MiniStack saves its state when it receives SIGUSR1, so the next start
    needs no deploy.

    Without this patch, MiniStack saves its state only when it exits, and does not save S3 objects.
    """
    from ministack import app
    from ministack.core.responses import AccountScopedDict
    from ministack.services import s3

    get_state, load_state = s3.get_state, s3.load_persisted_state

    @wraps(get_state)
    def get_state_with_objects() -> dict[str, Any]:
        if s3.S3_PERSIST:  # With S3_PERSIST, MiniStack stores S3 objects as files.
            return dict(get_state())
        objects = AccountScopedDict()
        objects._data.update({name: bucket["objects"] for name, bucket in s3._buckets._data.items()})
        return {**get_state(), "objects": objects}

    @wraps(load_state)
    def load_state_with_objects(state: dict[str, Any]) -> None:
        load_state(state)
        for name, objects in state["objects"]._data.items() if "objects" in state else ():
            s3._buckets._data[name]["objects"] = objects

    def save(*_: Any) -> None:
        app.save_all(app._build_persistence_save_dict())
        Path(os.environ["STATE_DIR"], "saved").touch()

    s3.get_state, s3.load_persisted_state = get_state_with_objects, load_state_with_objects
    os.umask(PRIVATE)
    signal.signal(signal.SIGUSR1, save)
