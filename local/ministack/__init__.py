"""Starts MiniStack, the local AWS, with patches where it differs from AWS in a way that matters here.

``launcher.py`` starts it. Every other file holds the patches of one service, and every public function in such a file
is a patch: its docstring says what AWS does, what MiniStack does, and who needs the difference removed.

The files run in MiniStack's own virtual environment, so they import nothing of the project.
"""
