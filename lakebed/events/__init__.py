"""Events: their struct, schema, validation, decoding, batches of columns and promoted properties."""
