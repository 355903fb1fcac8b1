"""The only part of the local AWS that knows MiniStack from the inside.

MiniStack has no interface for plug-ins: what is needed of it is reached through the names listed in `contract`, which
is checked before anything else happens.
"""
