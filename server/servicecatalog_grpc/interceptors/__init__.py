"""What every call passes through, one concern a file."""
