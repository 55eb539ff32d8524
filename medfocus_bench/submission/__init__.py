"""The submission format: schema, reader, writer and validator."""
