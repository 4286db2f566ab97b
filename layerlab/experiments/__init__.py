"""The source documents' experiments as plain functions that return plain data."""
