"""Examining a file that somebody sent: what it is by its bytes, whether a scanner objects, and pictures without metadata.

`examination.examine` does all of it. Imported by nothing but its caller: the decoder's process imports this package, so it
must stay empty.
"""
