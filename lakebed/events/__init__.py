"""What an event is: its struct, schema, validation, decoding, batches of columns and promoted properties."""
