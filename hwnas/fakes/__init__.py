"""Parts without hardware, for tests and CI: runtime and device `fake`, meter `replay`.

Workers on this machine find them by name (hwnas/settings/fakes.py); they are never sent to a board.
"""
