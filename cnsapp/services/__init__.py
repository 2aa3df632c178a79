"""What a user can do, one module of verbs a subject; each verb is one transaction."""
