"""Starts MiniStack, a local emulator of AWS, with patches for the differences from AWS that affect this project.

``launcher.py`` starts MiniStack. In every other file of this folder, each public function is one patch. The docstring
of a patch says what AWS does, what MiniStack does, and which code depends on the difference.

The files in this folder run in MiniStack's own virtual environment, so they import nothing from the project.
"""
