"""Whether an answer is right. Imports no other room."""
