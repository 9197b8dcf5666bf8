"""The servicers, one a file, and the way that every call of theirs takes."""
