"""Every problem set as rows of question, answer, id, source. Imports no other room."""
