"""Starts MiniStack, the local AWS, with patches for those differences from AWS that matter to this project.

``launcher.py`` starts MiniStack. Every other file contains the patches for one service, as its public
functions. A patch's docstring says what AWS does, what MiniStack does, and which code depends on the difference.

These files run in MiniStack's own virtual environment, so they import nothing from the project.
"""
