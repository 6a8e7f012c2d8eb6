"""Starts MiniStack, the local AWS, with patches for the differences from AWS that matter to this project.

``launcher.py`` starts MiniStack. Every other file contains the patches for one service, and its public functions are
the patches. A patch's docstring says what AWS does, what MiniStack does, and which code depends on the difference.

The files run in MiniStack's own virtual environment, so they import nothing from the project.
"""
