"""The only part of the local AWS that knows MiniStack from the inside.

MiniStack has no interface for plug-ins, and gives no promise about the names by which it is reached: its version is
checked before anything else happens.
"""
