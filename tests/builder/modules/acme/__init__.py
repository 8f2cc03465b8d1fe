"""What a user's own package in the worker image would be."""
