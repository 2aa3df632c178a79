"""Tables, sessions, queries and migrations. Everything that only SQLite needs stays in here."""
