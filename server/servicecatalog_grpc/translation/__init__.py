"""Between protobuf and AWS: pairing, validation, both directions, prose rules and tokens."""
